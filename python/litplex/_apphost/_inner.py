"""Connections to the inner socket, on which the server answers forwarded requests.

They are plain sockets, not asyncio's streams: a stream drops the data that it could still read when
the other end stops reading. A connection is used again once a response is complete. The server's
HTTP/1.1 needs no general parser: anything else ends the response with an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator

_PIECE_BYTES = 1 << 16
# The limit of the server.
_HEADER_BYTES = 400 * 1024
# The server closes a connection that is not used for 30 s.
_IDLE_SECONDS = 10
_MOST_IDLE = 64
_BODILESS = (204, 304)
# The longest line that begins a chunk, and the longest trailer.
_CHUNK_LINE_BYTES = 1024
_status = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?").fullmatch
_field = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*"
).fullmatch
_length = re.compile(rb"[0-9]{1,18}").fullmatch
_chunk_size = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?").fullmatch

Headers = list[tuple[bytes, bytes]]


class BrokenOff(Exception):
    """The response is not complete, or not HTTP; the client must see that."""

    def __init__(self, why: str = "the server ended its response before it was complete") -> None:
        super().__init__(why)


def _not_http(what: str) -> BrokenOff:
    return BrokenOff(f"the server's response is not HTTP/1.1: {what}")


class Inner:
    """The inner socket.

    Args:
        path: The path of the socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[tuple[float, socket.socket]] = []

    async def connect(self) -> Connection:
        """Returns a connection without a request."""
        now = time.monotonic()
        while self._idle:
            since, sock = self._idle.pop()
            if now - since < _IDLE_SECONDS and _is_open(sock):
                return Connection(self, sock)
            sock.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._path)
        except BaseException:
            sock.close()
            raise
        return Connection(self, sock)

    def keep(self, sock: socket.socket) -> None:
        """Takes back a connection that can be used again."""
        if len(self._idle) < _MOST_IDLE:
            self._idle.append((time.monotonic(), sock))
        else:
            sock.close()

    def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop()[1].close()


def _is_open(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    # The server has closed it, or has sent data without a request.
    return False


def _status_of(line: bytes) -> int:
    found = _status(line)
    if found is None or found.group(1) == b"101":
        raise _not_http("the first line has no status")
    return int(found.group(1))


def _field_of(line: bytes) -> tuple[bytes, bytes]:
    found = _field(line)
    if found is None:
        raise _not_http("a header is not `name: value`")
    return found.group(1).lower(), found.group(2)


def _framing_of(headers: Headers) -> tuple[bool, int | None]:
    """Returns whether a body comes in chunks, and otherwise its length where that is known."""
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    lengths = [value for name, value in headers if name == b"content-length"]
    is_sound = codings == [b"chunked"] if codings else len(set(lengths)) <= 1
    if not is_sound or (codings and lengths) or not all(map(_length, lengths)):
        raise _not_http("the headers give no length of the body")
    return bool(codings), int(lengths[0]) if lengths else None


class Connection:
    """One request on the inner socket, and its response."""

    def __init__(self, inner: Inner, sock: socket.socket) -> None:
        self._inner = inner
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._read = bytearray()
        self._left: int | None = None
        self._is_chunked = False
        self._is_asked = False
        self._is_reusable = True
        self._is_bare = False
        self._is_complete = False

    async def ask(self, method: str, target: str, headers: Headers, body: bytes | None) -> None:
        """Sends the head of a request, and its body; None: the body follows piece by piece.

        Raises:
            ValueError: the head would not be that of one request.
        """
        self._is_bare = method == "HEAD"
        length = None if body is None else len(body)
        fields = self._framed(headers, length, method)
        lines = [f"{method} {target} HTTP/1.1".encode("latin-1")]
        lines += [name + b": " + value for name, value in fields]
        head = b"\r\n".join([*lines, b"", b""])
        # A middleware must not be able to add a second request.
        if head.count(b"\n") != len(lines) + 1 or lines[0].count(b" ") != 2:
            raise ValueError(
                "a middleware made a request with a line break or space where none may be"
            )
        # The server may answer before it has read all of a large body, and then reads no more.
        with contextlib.suppress(OSError):
            await self._send(head + (body or b""))
            self._is_asked = body is not None

    def _framed(self, headers: Headers, length: int | None, method: str) -> Headers:
        sizes = (b"content-length", b"transfer-encoding")
        fields = [(name, value) for name, value in headers if name.lower() not in sizes]
        if length is None:
            announced = [value for name, value in headers if name.lower() == sizes[0]]
            if announced:
                self._left = int(announced[0])
                return [*fields, (sizes[0], b"%d" % self._left)]
            self._is_chunked = True
            return [*fields, (sizes[1], b"chunked")]
        if length or method not in ("GET", "HEAD", "OPTIONS"):
            fields.append((sizes[0], b"%d" % length))
        return fields

    async def send_piece(self, piece: bytes) -> None:
        """Sends a piece of the body."""
        if self._is_chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
        elif self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                raise ValueError("the body of a request is longer than its Content-Length")
        await self._send(piece)

    async def end_body(self) -> None:
        """Sends the end of the body."""
        if self._is_chunked:
            await self._send(b"0\r\n\r\n")
        elif self._left:
            raise ValueError("the body of a request is shorter than its Content-Length")
        self._is_asked = True

    async def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            await self._loop.sock_sendall(self._sock, memoryview(data)[sent:])

    async def answer(self) -> tuple[int, Headers]:
        """Returns the status and headers of the response.

        Raises:
            BrokenOff: the response is not complete, or not HTTP.
        """
        status, headers = 100, Headers()
        while status < 200:
            first, *lines = await self._head()
            status, headers = _status_of(first), [_field_of(line) for line in lines]
            self._is_chunked, self._left = _framing_of(headers)
        self._is_reusable = not any(
            name == b"connection" and b"close" in value.lower() for name, value in headers
        )
        self._is_bare |= status in _BODILESS
        return status, headers

    async def _head(self) -> list[bytes]:
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            if len(self._read) > _HEADER_BYTES:
                raise _not_http("the headers have no end")
            await self._more()
        lines = bytes(self._read[:end]).split(b"\r\n")
        del self._read[: end + 4]
        return lines

    async def pieces(self) -> AsyncIterator[tuple[bytes, bool]]:
        """Yields the pieces of the response's body, each with whether it is the last."""
        if self._is_bare:
            self._is_complete = True
            yield b"", True
        elif self._left is not None:
            while True:
                piece = bytes(self._read[: self._left])
                del self._read[: len(piece)]
                self._left -= len(piece)
                self._is_complete = not self._left
                if piece or self._is_complete:
                    yield piece, self._is_complete
                if self._is_complete:
                    return
                await self._more()
        elif self._is_chunked:
            async for piece in self._chunks():
                yield piece, not piece
        else:
            raise BrokenOff

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Yields chunks, joined if they arrived together, and at last an empty one."""
        while True:
            together = bytearray()
            while (chunk := self._take_chunk()) is not None:
                if not chunk:
                    if together:
                        yield bytes(together)
                    self._is_complete = True
                    yield b""
                    return
                together += chunk
            if together:
                yield bytes(together)
            else:
                await self._more()

    def _take_chunk(self) -> bytes | None:
        """Returns the next chunk, an empty one at the end; None: it has not arrived yet."""
        end = self._read.find(b"\r\n", 0, _CHUNK_LINE_BYTES)
        if end < 0:
            if len(self._read) >= _CHUNK_LINE_BYTES:
                raise _not_http("the size of a chunk has no end")
            return None
        found = _chunk_size(bytes(self._read[:end]))
        if found is None:
            raise _not_http("the size of a chunk is not a number")
        length, begin = int(found.group(1), 16), end + 2
        if not length:
            return self._take_trailers(begin)
        over = begin + length + 2
        if len(self._read) < over:
            return None
        if self._read[over - 2 : over] != b"\r\n":
            raise _not_http("a chunk is longer than its size")
        chunk = bytes(self._read[begin : over - 2])
        del self._read[:over]
        return chunk

    def _take_trailers(self, begin: int) -> bytes | None:
        """Drops the headers that may follow the last chunk, up to the end of the response."""
        if self._read.startswith(b"\r\n", begin):
            end = begin + 2
        elif (found := self._read.find(b"\r\n\r\n", begin)) >= 0:
            for line in bytes(self._read[begin:found]).split(b"\r\n"):
                _field_of(line)
            end = found + 4
        elif len(self._read) > _HEADER_BYTES:
            raise _not_http("the trailers have no end")
        else:
            return None
        del self._read[:end]
        return b""

    async def _more(self) -> None:
        try:
            data = await self._loop.sock_recv(self._sock, _PIECE_BYTES)
        except OSError as error:
            raise BrokenOff from error
        if not data:
            raise BrokenOff
        self._read += data

    def abort(self) -> None:
        """Breaks the request off; a reader of the response gets :class:`BrokenOff`."""
        self._is_reusable = False
        with contextlib.suppress(OSError):  # The other end was first.
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the request."""
        is_over = self._is_complete and self._is_asked and not self._read
        if is_over and self._is_reusable:
            self._inner.keep(self._sock)
        else:
            self._sock.close()
