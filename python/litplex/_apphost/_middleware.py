"""Middlewares that dispatch, as ``app.middleware("http")`` creates them, at a lower cost.

Starlette's use a task group for the app, another for each message to it, and a stream between them.
This costs more than the rest of the app host. One task is enough. Failures, the rest of a body and
background tasks behave in the same way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from inspect import signature
from typing import TYPE_CHECKING, Any

from starlette.middleware import base
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CachedRequest: Any = getattr(base, "_CachedRequest", None)
# Older versions of Starlette do not pass `send`.
_TAKES_SEND = _CachedRequest is not None and "send" in signature(_CachedRequest).parameters

if TYPE_CHECKING:
    # A future that only says that something has happened.
    _Signal = asyncio.Future[None]


def without_task_group(kind: Any) -> Any:
    """Returns an equal middleware class that needs no task group.

    Classes that do not dispatch as ``BaseHTTPMiddleware`` does are returned as they are.
    """
    if _CachedRequest is None or not isinstance(kind, type):
        return kind
    if kind.__call__ is not base.BaseHTTPMiddleware.__call__:
        return kind
    return type(kind)(
        kind.__name__,
        (kind,),
        {"__call__": _dispatch, "__module__": kind.__module__, "__doc__": kind.__doc__},
    )


async def _dispatch(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        await self.app(scope, receive, send)
        return
    request = _CachedRequest(scope, receive, *([send] if _TAKES_SEND else []))
    calls: list[_Call] = []

    async def call_next(_: Request) -> _AppResponse:
        call = _Call(self.app, request)
        calls.append(call)
        return await call.response(send)

    try:
        response = await self.dispatch_func(request, call_next)
        await response(scope, request.wrapped_receive, send)
        for call in calls:
            await call.end()
    except BaseException:
        for call in calls:
            call.task.cancel()
        await asyncio.gather(*(call.task for call in calls), return_exceptions=True)
        raise


class _Call:
    """A call of the app inside a middleware, for one request, in a task of its own."""

    def __init__(self, app: ASGIApp, request: Any) -> None:
        self._request = request
        self._is_read = False
        self._messages: deque[tuple[Message, _Signal | None]] = deque()
        self._is_over = False
        self._reader: _Signal | None = None
        self._answered = asyncio.Event()
        self._error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self.task = self._loop.create_task(self._run(app))

    async def _run(self, app: ASGIApp) -> None:
        try:
            await app(self._request.scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001
            self._error = error
        finally:
            self._is_over = True
            _wake(self._reader)

    async def _receive(self) -> Message:
        if self._is_read and not self._answered.is_set():
            message = await self._disconnect_or_answered()
        else:
            message = await self._request.wrapped_receive()
            self._is_read = not message.get("more_body")
        return {"type": "http.disconnect"} if self._answered.is_set() else message

    async def _disconnect_or_answered(self) -> Message:
        waits: list[Coroutine[Any, Any, Any]] = [
            self._request.wrapped_receive(),
            self._answered.wait(),
        ]
        left, answered = tasks = [self._loop.create_task(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return {} if answered.done() else left.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, message: Message) -> None:
        if self._answered.is_set():
            return
        is_start = message["type"] == "http.response.start"
        taken: _Signal | None = None if is_start else self._loop.create_future()
        self._messages.append((message, taken))
        _wake(self._reader)
        if _is_end(message):
            # The app continues after its client has the response.
            await self._answered.wait()
        elif taken is not None:
            await taken

    async def next(self) -> Message | None:
        """Returns the next message of the app; None after the last one."""
        while not self._messages:
            if self._is_over:
                return None
            self._reader = self._loop.create_future()
            await self._reader
        message, taken = self._messages.popleft()
        _wake(taken)
        self._is_over |= _is_end(message)
        return message

    async def response(self, send: Send) -> _AppResponse:
        """Returns the app's response as soon as it begins, or raises the app's exception."""
        info = None
        while message := await self.next():
            if message["type"] == "http.response.debug":
                info = message["info"]
            elif message["type"] == "http.response.early_hint":
                await send(message)
            else:
                return _AppResponse(self, message, info)
        if self._error is None:
            raise RuntimeError("No response returned.")
        error, self._error = self._error, None
        raise error

    async def end(self) -> None:
        """Waits for the end of the app, whose client has a response. Raises the app's exception."""
        self._answered.set()
        for _, taken in self._messages:
            _wake(taken)
        await self.task
        if self._error is not None:
            raise self._error


class _AppResponse(Response):
    """The result of ``call_next``: the response of the app, passed on as it arrives."""

    def __init__(self, call: _Call, start: Message, info: Any) -> None:
        self.status_code = start["status"]
        self.raw_headers = start.get("headers", [])
        self.media_type = None
        # A program may set a task here.
        self.background: Any = None
        self.info = info
        self._call = call
        self.body_iterator = self._pieces = _pieces(call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.info is not None:
            await send({"type": "http.response.debug", "info": self.info})
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        is_whole = self.body_iterator is self._pieces
        await (self._pass_messages(send) if is_whole else self._pass_pieces(send))
        if self.background:
            await self.background()

    async def _pass_messages(self, send: Send) -> None:
        message = None
        while following := await self._call.next():
            message = following
            await send(message)
        if message is None or not _is_end(message):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pass_pieces(self, send: Send) -> None:
        is_sent = False
        async for piece in self.body_iterator:
            if isinstance(piece, dict):
                is_sent = True
                await send(piece)
            else:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if not is_sent:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _pieces(call: _Call) -> AsyncIterator[Any]:
    while message := await call.next():
        if message["type"] == "http.response.pathsend":
            yield message
        elif body := message.get("body", b""):
            yield body


def _is_end(message: Message) -> bool:
    kind = message["type"]
    is_last = kind == "http.response.body" and not message.get("more_body")
    return bool(is_last or kind == "http.response.pathsend")


def _wake(waiting: _Signal | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
