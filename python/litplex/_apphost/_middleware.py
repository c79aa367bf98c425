"""Middlewares that dispatch, as ``app.middleware("http")`` makes them, at less cost.

Starlette's take a group of tasks for the app, another for each message to it, and a stream between
them, which costs more than all else that the app host does. One task is enough. Programs cannot
tell: who learns of a failure, what is left of a body, and when background tasks run are the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from inspect import signature
from typing import Any

from starlette.middleware import base
from starlette.requests import Request
from starlette.responses import Response

_CachedRequest: Any = getattr(base, "_CachedRequest", None)
# It has not always been given what sends.
_TAKES_SEND = _CachedRequest is not None and "send" in signature(_CachedRequest).parameters


def lighter(kind: Any) -> Any:
    """Returns a middleware class that does the same with less, if there is one."""
    if _CachedRequest is None or not isinstance(kind, type):
        return kind
    if kind.__call__ is not base.BaseHTTPMiddleware.__call__:
        return kind
    return type(kind)(
        kind.__name__,
        (kind,),
        {"__call__": _dispatch, "__module__": kind.__module__, "__doc__": kind.__doc__},
    )


async def _dispatch(self: Any, scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        await self.app(scope, receive, send)
        return
    request = _CachedRequest(scope, receive, *([send] if _TAKES_SEND else []))
    calls: list[_Call] = []

    async def call_next(_: Request) -> Response:
        call = _Call(self.app, request)
        calls.append(call)
        return await call.answer(send)

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
    """The app inside of a middleware, answering one request in a task of its own."""

    def __init__(self, app, request):
        self._request = request
        self._is_read = False
        self._messages: deque[Any] = deque()
        self._is_over = False
        self._reader = None
        self._answered = asyncio.Event()
        self._error = None
        self._loop = asyncio.get_running_loop()
        self.task = self._loop.create_task(self._run(app))

    async def _run(self, app):
        try:
            await app(self._request.scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001
            self._error = error
        finally:
            self._is_over = True
            _wake(self._reader)

    async def _receive(self):
        if self._is_read and not self._answered.is_set():
            message = await self._left_or_answered()
        else:
            message = await self._request.wrapped_receive()
            self._is_read = not message.get("more_body")
        return {"type": "http.disconnect"} if self._answered.is_set() else message

    async def _left_or_answered(self):
        waits = [self._request.wrapped_receive(), self._answered.wait()]
        left, answered = tasks = [self._loop.create_task(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return None if answered.done() else left.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, message):
        if self._answered.is_set():
            return
        is_start = message["type"] == "http.response.start"
        taken = None if is_start else self._loop.create_future()
        self._messages.append((message, taken))
        _wake(self._reader)
        if _is_end(message):
            # What the app does once its client has the answer comes after that.
            await self._answered.wait()
        elif taken is not None:
            await taken

    async def next(self):
        """Returns the next message of the app; None: there is none after the last."""
        while not self._messages:
            if self._is_over:
                return None
            self._reader = self._loop.create_future()
            await self._reader
        message, taken = self._messages.popleft()
        _wake(taken)
        self._is_over |= _is_end(message)
        return message

    async def answer(self, send):
        """Returns the app's answer, as soon as that begins, or raises what the app did."""
        info = None
        while message := await self.next():
            if message["type"] == "http.response.debug":
                info = message["info"]
            elif message["type"] == "http.response.early_hint":
                await send(message)
            else:
                return _Answer(self, message, info)
        if self._error is None:
            raise RuntimeError("No response returned.")
        error, self._error = self._error, None
        raise error

    async def end(self):
        """Waits for the end of the app, whose client has an answer. Raises what the app does."""
        self._answered.set()
        for _, taken in self._messages:
            _wake(taken)
        await self.task
        if self._error is not None:
            raise self._error


class _Answer(Response):
    """What ``call_next`` returns: the answer of the app, passed on as it comes."""

    def __init__(self, call, start, info):
        self.status_code = start["status"]
        self.raw_headers = start.get("headers", [])
        self.media_type = None
        self.background = None
        self.info = info
        self._call = call
        self.body_iterator = self._pieces = _pieces(call)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.info is not None:
            await send({"type": "http.response.debug", "info": self.info})
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        is_whole = self.body_iterator is self._pieces
        await (self._pass_messages(send) if is_whole else self._pass_pieces(send))
        if self.background:
            await self.background()

    async def _pass_messages(self, send):
        message = None
        while following := await self._call.next():
            message = following
            await send(message)
        if message is None or not _is_end(message):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pass_pieces(self, send):
        is_sent = False
        async for piece in self.body_iterator:
            if isinstance(piece, dict):
                is_sent = True
                await send(piece)
            else:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if not is_sent:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _pieces(call) -> AsyncIterator[Any]:
    while message := await call.next():
        if message["type"] == "http.response.pathsend":
            yield message
        elif body := message.get("body", b""):
            yield body


def _is_end(message):
    kind = message["type"]
    is_last = kind == "http.response.body" and not message.get("more_body")
    return is_last or kind == "http.response.pathsend"


def _wake(waiting):
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
