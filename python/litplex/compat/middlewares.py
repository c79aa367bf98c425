"""The module ``litserve.middlewares``. Middlewares run in the app host."""

from __future__ import annotations

from typing import Any


class MaxSizeMiddleware:
    """Refuses requests whose body is larger than ``max_size`` bytes with 413.

    ``max_payload_size`` of LitServer does the same without a middleware.
    """

    def __init__(self, app: Any, *, max_size: int | None = None) -> None:
        self.app = app
        self.max_size = max_size

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or self.max_size is None:
            await self.app(scope, receive, send)
            return
        # Workers import this module too, and may not have Starlette.
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse

        limit, read = self.max_size, 0
        if _declared_bytes(scope) > limit:
            refusal = JSONResponse({"detail": "Payload too large"}, 413)
            await refusal(scope, receive, send)
            return

        async def receive_within_limit() -> Any:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise HTTPException(413, "Payload too large")
            return message

        await self.app(scope, receive_within_limit, send)


def _declared_bytes(scope: Any) -> int:
    declared = dict(scope["headers"]).get(b"content-length", b"")
    return int(declared) if declared.isdigit() else 0


class RequestCountMiddleware:
    """Keeps the number of active requests in ``active_counter.value``."""

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

        def end() -> None:
            nonlocal is_counted
            self.active_counter.value -= is_counted
            is_counted = False

        async def send_and_end(message: Any) -> None:
            # Before the client has its response, after which it may send the next request.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                end()
            await send(message)

        try:
            await self.app(scope, receive, send_and_end)
        finally:
            end()
