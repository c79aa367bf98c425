"""Answers a request with the server's response on its inner socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from litplex._apphost._inner import BrokenOff, Connection, Headers
from litplex._callbacks import trigger

if TYPE_CHECKING:
    from litplex._types import Server

_UNREAD_PIECES = 1 << 16
# The time after which a task waits for the client of a response to leave.
_PATIENCE_SECONDS = 0.05

# Headers between two neighbours. `Transfer-Encoding` stays with the body of a request.
_HOP_BY_HOP = {
    b"connection",
    b"expect",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"upgrade",
}


#: The key of a request's :class:`ForwardResult` in its scope.
RESULT = "litplex"

#: The key, in the scope of a request, of the headers in which the server named the client and the
#: target of the request. They return with the inner request: the server answers no other.
INTRODUCTION = "litplex.introduction"

#: The key, in the scope of a request, of the name of the endpoint that it was admitted to, if
#: several endpoints share its path.
ENDPOINT = "litplex.endpoint"

#: The prefix of the names of those headers.
INTERNAL = b"x-litplex-"


class ForwardResult:
    """The state of a response that middlewares may hide: some end a broken one as if it were
    complete."""

    is_broken = False
    #: Whether the client left before it had sent its request, so that no response is sent.
    is_client_gone = False


class ForwardedResponse(Response):
    """The server's response, passed on as it arrives. The server learns when the client leaves.

    Args:
        request: The request.
        path: The path of the inner request, decoded. None: the path of the request.
        headers: Headers that are added to those of the response.
        observer: The server whose callbacks receive the events of the request. None: no server's.
    """

    def __init__(
        self, request: Request, path: str | None, headers: Headers, observer: Server | None = None
    ) -> None:
        # Without `super().__init__()`, which makes headers of a response of its own.
        self.status_code = 200
        self.body = b""
        self.background = None
        self.raw_headers = headers
        self._request = request
        self._path = quote(path or request.scope["path"])
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = self._request.app.state.litplex_inner
        if inner is None:
            raise RuntimeError(
                "the app needs a running server to answer this: start it with `run`, or for a test "
                "client with `wrap_litserve_start`"
            )
        if self._observer is not None:
            self._trigger("on_request", active_requests=self._observer.active_requests)
        connection = await inner.connect()
        with contextlib.closing(connection):
            await self._exchange(connection, send)

    async def _exchange(self, connection: Connection, send: Send) -> None:
        pieces = self._request.stream()
        try:
            first = await pieces.__anext__()
            second = await pieces.__anext__() if first else b""
        except ClientDisconnect:
            self._request.scope.get(RESULT, ForwardResult()).is_client_gone = True
            return
        # A middleware may have replaced the body: the length is known only if it is one piece.
        await self._ask(connection, None if second else first)
        rest = _RemainingBody(self._request, connection)
        if second:
            rest.begin(first + second, pieces)
        else:
            rest.begin_soon()
        try:
            await self._pass_response(connection, send)
        except BrokenOff:
            if rest.error is not None:
                raise rest.error from None
            result = self._request.scope.get(RESULT, ForwardResult())
            result.is_client_gone = rest.is_client_gone
            result.is_broken = not rest.is_client_gone
            if result.is_broken:
                raise
        finally:
            await rest.end()

    async def _ask(self, connection: Connection, body: bytes | None) -> None:
        scope = self._request.scope
        headers = [(name, value) for name, value in scope["headers"] if _is_request_header(name)]
        headers += scope.get(INTRODUCTION, [])
        query = scope["query_string"].decode("latin-1")
        target = f"{self._path}?{query}" if query else self._path
        await connection.ask(scope["method"], target, headers, body)

    async def _pass_response(self, connection: Connection, send: Send) -> None:
        status, headers = await connection.answer()
        headers = [(name, value) for name, value in headers if _is_response_header(name)]
        is_error = status >= 400
        is_stream = not any(name == b"content-length" for name, _ in headers)
        if not (is_error or is_stream):
            self._trigger("on_response")
        headers += self.raw_headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        is_due = is_stream and not is_error
        try:
            async for piece, is_last in connection.pieces():
                # Before the last piece, so that a client sees its effect at the end.
                if is_last and is_due:
                    is_due = False
                    self._trigger("on_response")
                await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
        finally:
            if is_due:
                self._trigger("on_response")

    def _trigger(self, event: str, **arguments: Any) -> None:
        if self._observer is not None:
            trigger(self._observer.callbacks, event, litserver=self._observer, **arguments)


class _RemainingBody:
    """Follows the client while it gets its response: passes on the rest of its body, and ends the
    inner request when it leaves."""

    def __init__(self, request: Request, connection: Connection) -> None:
        self._request = request
        self._connection = connection
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_client_gone = False

    def begin(self, body: bytes, pieces: AsyncIterator[bytes]) -> None:
        """Passes on this part of the body, and all further ones."""
        self._task = asyncio.create_task(self._follow(body, pieces))

    def begin_soon(self) -> None:
        """Begins to wait for the client to leave, unless the response is complete before: to listen
        to the client, through all middlewares, costs more than most responses."""
        self._timer = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._begin_waiting)

    def _begin_waiting(self) -> None:
        self._task = asyncio.create_task(self._follow())

    @property
    def error(self) -> BaseException | None:
        """The error with which the body of the request failed, if it did."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    async def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self, body: bytes = b"", pieces: AsyncIterator[bytes] | None = None) -> None:
        try:
            with contextlib.suppress(ClientDisconnect):
                if pieces is not None:
                    with contextlib.suppress(OSError):  # The response came before it was read.
                        await self._pass_body(body, pieces)
                await self._client_left()
            self.is_client_gone = True
        except asyncio.CancelledError:
            # The response has ended: if it is complete, the connection can be used again.
            raise
        except BaseException:
            self._connection.abort()
            raise
        self._connection.abort()

    async def _pass_body(self, body: bytes, pieces: AsyncIterator[bytes]) -> None:
        await self._connection.send_piece(body)
        async for piece in pieces:
            await self._connection.send_piece(piece)
        await self._connection.end_body()

    async def _client_left(self) -> None:
        for _ in range(_UNREAD_PIECES):
            # Starlette raises for each unread piece of a body that a middleware has replaced.
            with contextlib.suppress(Exception):
                while (await self._request.receive())["type"] != "http.disconnect":
                    pass
                return
        await asyncio.Event().wait()


def _is_request_header(name: bytes) -> bool:
    return name not in _HOP_BY_HOP and not name.startswith(INTERNAL)


def _is_response_header(name: bytes) -> bool:
    return name not in _HOP_BY_HOP and name != b"transfer-encoding"
