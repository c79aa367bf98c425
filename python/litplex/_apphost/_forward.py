"""Answers a request with what litplex answers on its inner socket."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from litplex._apphost._inner import BrokenOff
from litplex._callbacks import trigger

_UNREAD_PIECES = 1 << 16
# An answer that takes longer has somebody who looks whether its client has left.
_PATIENCE_SECONDS = 0.02

# What is said between two neighbours. What else belongs to a body's length stays with the body.
_HOP_BY_HOP = {
    b"connection",
    b"expect",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"upgrade",
}


#: Where the scope of a request has its :class:`Fate`.
FATE = "litplex"

#: Where the scope of a request has the headers by which litplex said who asks, and what the request
#: was let in for. They go back with what the app asks: litplex answers nothing else.
INTRODUCTION = "litplex.introduction"

#: How their names begin.
INTERNAL = b"x-litplex-"


class Fate:
    """What became of an answer, as middlewares may not tell: some end a broken one as if it were
    complete."""

    is_broken = False
    #: Whether the client left before it had sent its request, so that nothing answers it.
    is_client_gone = False


class Forwarded(Response):
    """The answer of litplex, passed on as it comes. When the client leaves, litplex learns of it.

    Args:
        request: The request.
        path: Where litplex is asked, decoded. None: where the client asked.
        headers: What is added to those of the answer.
        told: The server whose callbacks are told of the request and of its answer, if any are.
    """

    def __init__(
        self, request: Request, path: str | None, headers: list[Any], told: Any = None
    ) -> None:
        super().__init__()
        self.raw_headers = headers
        self._request = request
        self._path = quote(path or request.scope["path"])
        self._told = told

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        inner = self._request.app.state.litplex_inner
        if inner is None:
            raise RuntimeError(
                "the app asks a running server for this: start it with `run`, or for a test client "
                "with `wrap_litserve_start`"
            )
        if self._told is not None:
            self._tell("on_request", active_requests=self._told.active_requests)
        connection = await inner.connect()
        with contextlib.closing(connection):
            await self._exchange(connection, send)

    async def _exchange(self, connection, send):
        pieces = self._request.stream()
        try:
            first = await pieces.__anext__()
            second = await pieces.__anext__() if first else b""
        except ClientDisconnect:
            self._request.scope.get(FATE, Fate()).is_client_gone = True
            return
        # A middleware may have put another body in its place: of one piece the length is known.
        await self._ask(connection, None if second else first)
        rest = _Rest(self._request, connection)
        if second:
            rest.begin(first + second, pieces)
        else:
            rest.begin_soon()
        try:
            await self._pass_answer(connection, send)
        except BrokenOff:
            if rest.error is not None:
                raise rest.error from None
            if not rest.is_client_gone:
                self._request.scope.get(FATE, Fate()).is_broken = True
                raise
        finally:
            await rest.end()

    async def _ask(self, connection, body):
        scope = self._request.scope
        headers = [(name, value) for name, value in scope["headers"] if _is_asked_with(name)]
        headers += scope.get(INTRODUCTION, [])
        query = scope["query_string"].decode("latin-1")
        target = f"{self._path}?{query}" if query else self._path
        await connection.ask(scope["method"], target, headers, body)

    async def _pass_answer(self, connection, send):
        status, headers = await connection.answer()
        headers = [(name, value) for name, value in headers if _is_passed_on(name)]
        is_error = status >= 400
        is_stream = not any(name == b"content-length" for name, _ in headers)
        if not (is_error or is_stream):
            self._tell("on_response")
        headers += self.raw_headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        try:
            async for piece, is_last in connection.pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
        finally:
            if is_stream and not is_error:
                self._tell("on_response")

    def _tell(self, event, **what):
        if self._told is not None:
            trigger(self._told.callbacks, event, litserver=self._told, **what)


class _Rest:
    """What a client sends while it is answered: more of its body, and that it leaves."""

    def __init__(self, request, connection):
        self._request = request
        self._connection = connection
        self._task = None
        self._timer = None
        self.is_client_gone = False

    def begin(self, body, pieces):
        """Passes on this part of the body, and all further ones."""
        self._task = asyncio.create_task(self._pass(body, pieces))

    def begin_soon(self):
        """Begins to wait for the client to leave, unless it is answered before: to listen to it,
        through all the middlewares, costs more than most answers."""
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._begin_waiting)

    def _begin_waiting(self):
        self._task = asyncio.create_task(self._pass(None, None))

    @property
    def error(self):
        """What the body of the request failed with, if it did."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    async def end(self):
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _pass(self, body, pieces):
        try:
            with contextlib.suppress(ClientDisconnect):
                if body is not None:
                    with contextlib.suppress(OSError):  # It was answered before it was read.
                        await self._pass_body(body, pieces)
                await self._client_left()
            self.is_client_gone = True
        finally:
            self._connection.abort()

    async def _pass_body(self, body, pieces):
        await self._connection.send_piece(body)
        async for piece in pieces:
            await self._connection.send_piece(piece)
        await self._connection.end_body()

    async def _client_left(self):
        for _ in range(_UNREAD_PIECES):
            # Starlette raises for each piece of a body in whose place another was put unread.
            with contextlib.suppress(Exception):
                while (await self._request.receive())["type"] != "http.disconnect":
                    pass
                return
        await asyncio.Event().wait()


def _is_asked_with(name):
    return name not in _HOP_BY_HOP and not name.startswith(INTERNAL)


def _is_passed_on(name):
    return name not in _HOP_BY_HOP and name != b"transfer-encoding"
