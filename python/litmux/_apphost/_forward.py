"""Answers a request with what litmux answers on its inner socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any
from urllib.parse import quote

import h11
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from litmux._worker._callbacks import trigger

_PIECE_BYTES = 1 << 16
_UNREAD_PIECES = 1 << 16
# As much as litmux itself takes.
_HEADER_BYTES = 400 * 1024

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
FATE = "litmux"


class Fate:
    """What became of an answer, as middlewares may not tell: some end a broken one as if it were
    complete."""

    is_broken = False


class BrokenOff(Exception):
    """The answer is not complete; the client must see that."""

    def __init__(self) -> None:
        super().__init__("the server ended its answer before that was complete")


class Forwarded(Response):
    """The answer of litmux, passed on as it comes. When the client leaves, litmux learns of it.

    Args:
        request: The request.
        path: Where litmux is asked. None: where the client asked.
        headers: What is added to those of the answer.
        told: The server whose callbacks are told of the request and of its answer, if any are.
    """

    def __init__(
        self, request: Request, path: str | None, headers: list[Any], told: Any = None
    ) -> None:
        super().__init__()
        self.raw_headers = headers
        self._request = request
        self._path = path or quote(request.scope["path"])
        self._told = told

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        inner = self._request.app.state.litmux_inner
        if inner is None:
            raise RuntimeError(
                "the app asks a running server for this: start it with `run`, or for a test client "
                "with `wrap_litserve_start`"
            )
        if self._told is not None:
            self._tell("on_request", active_requests=self._told.active_requests)
        peer = await _Peer.connect(inner)
        answer = asyncio.create_task(self._pass_answer(peer, send))
        # It ends first only where the client has left, or its body cannot be passed on.
        ask = asyncio.create_task(self._ask(peer))
        try:
            await asyncio.wait((answer, ask), return_when=asyncio.FIRST_COMPLETED)
            (answer if answer.done() else ask).result()
        finally:
            for task in (answer, ask):
                task.cancel()
            await asyncio.gather(answer, ask, return_exceptions=True)
            peer.close()

    async def _ask(self, peer):
        with contextlib.suppress(ClientDisconnect):
            with contextlib.suppress(OSError):  # It was answered before it was read.
                await self._pass_body(peer)
            await self._client_left()

    async def _pass_body(self, peer):
        pieces = self._request.stream()
        first = await pieces.__anext__()
        second = await pieces.__anext__() if first else b""
        # A middleware may have put another body in its place: of one piece the length is known.
        await peer.send(self._head(None if second else len(first)))
        await peer.send(h11.Data(first + second))
        async for piece in pieces:
            await peer.send(h11.Data(piece))
        await peer.send(h11.EndOfMessage())

    async def _client_left(self):
        for _ in range(_UNREAD_PIECES):
            # Starlette raises for each piece of a body in whose place another was put unread.
            with contextlib.suppress(Exception):
                while (await self._request.receive())["type"] != "http.disconnect":
                    pass
                return
        await asyncio.Event().wait()

    def _head(self, length):
        scope = self._request.scope
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP_BY_HOP]
        if length is not None:
            new = str(length).encode()
            headers = [(n, new if n == b"content-length" else value) for n, value in headers]
        query = scope["query_string"].decode("latin-1")
        target = f"{self._path}?{query}" if query else self._path
        return h11.Request(method=scope["method"], target=target, headers=headers)

    async def _pass_answer(self, peer, send):
        start = await peer.answer()
        headers = [(name, value) for name, value in start.headers if _is_passed_on(name)]
        is_error = start.status_code >= 400
        is_stream = not any(name == b"content-length" for name, _ in headers)
        if not (is_error or is_stream):
            self._tell("on_response")
        await send(
            {
                "type": "http.response.start",
                "status": start.status_code,
                "headers": headers + self.raw_headers,
            }
        )
        try:
            async for piece in peer.pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except BrokenOff:
            self._request.scope.get(FATE, Fate()).is_broken = True
            raise
        finally:
            if is_stream and not is_error:
                self._tell("on_response")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _tell(self, event, **what):
        if self._told is not None:
            trigger(self._told.callbacks, event, litserver=self._told, **what)


def _is_passed_on(name):
    return name not in _HOP_BY_HOP and name != b"transfer-encoding"


class _Peer:
    """The server's end of the inner socket.

    A plain socket and not a stream of asyncio's: that forgets what it could still read, once the
    other end reads no more.
    """

    def __init__(self, sock):
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADER_BYTES)

    @classmethod
    async def connect(cls, path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        peer = cls(sock)
        try:
            await peer._loop.sock_connect(sock, path)
        except BaseException:
            sock.close()
            raise
        return peer

    def close(self):
        self._sock.close()

    async def send(self, event):
        data = self._http.send(event)
        if data:
            await self._loop.sock_sendall(self._sock, data)

    async def answer(self):
        while not isinstance(event := await self._next(), h11.Response):
            pass
        return event

    async def pieces(self):
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    async def _next(self):
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._loop.sock_recv(self._sock, _PIECE_BYTES))
        except (OSError, h11.RemoteProtocolError) as error:
            raise BrokenOff from error
        if isinstance(event, h11.ConnectionClosed):
            raise BrokenOff
        return event
