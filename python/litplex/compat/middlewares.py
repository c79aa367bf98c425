"""What ``import litserve.middlewares`` finds. They run in the app host, as all middlewares do."""

from __future__ import annotations

from typing import Any


class MaxSizeMiddleware:
    """Refuses requests whose body is larger than ``max_size`` bytes with 413.

    ``max_payload_size`` of LitServer does that too, and needs no middleware.
    """

    def __init__(self, app: Any, *, max_size: int | None = None) -> None:
        self.app = app
        self.max_size = max_size

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or self.max_size is None:
            await self.app(scope, receive, send)
            return
        # Workers import this too, and need not have Starlette.
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse

        limit, read = self.max_size, 0
        if _declared_bytes(scope) > limit:
            refusal = JSONResponse({"detail": "Payload too large"}, 413)
            await refusal(scope, receive, send)
            return

        async def receive_within_limit():
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise HTTPException(413, "Payload too large")
            return message

        await self.app(scope, receive_within_limit, send)


def _declared_bytes(scope):
    declared = dict(scope["headers"]).get(b"content-length", b"")
    return int(declared) if declared.isdigit() else 0


class RequestCountMiddleware:
    """Keeps in ``active_counter.value`` how many requests are being answered."""

    _NOT_COUNTED = ("/", "/health", "/metrics")

    def __init__(self, app: Any, active_counter: Any) -> None:
        self.app = app
        self.active_counter = active_counter

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in self._NOT_COUNTED:
            await self.app(scope, receive, send)
            return
        self.active_counter.value += 1
        is_counted = True

        def end():
            nonlocal is_counted
            self.active_counter.value -= is_counted
            is_counted = False

        async def send_and_end(message):
            # Before the client has its answer, for it may ask again at once.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                end()
            await send(message)

        try:
            await self.app(scope, receive, send_and_end)
        finally:
            end()
