"""Frames of the worker protocol; see ``protocol/PROTOCOL.md``."""

from __future__ import annotations

import json
import select
import socket
import struct
from typing import Any, Union

from litplex._worker.wire.json import dumps, loads

#: The kind, flags, status, id and payload of a frame.
Frame = tuple[int, int, int, int, memoryview]
Payload = Union[bytes, memoryview]

HEADER = struct.Struct("<IBBHQ")
LENGTH = struct.Struct("<I")
MAX_PAYLOAD_BYTES = 1 << 30
PROTOCOL = 2

HELLO, WELCOME, REFUSE, SETUP, READY, FAILED = 1, 2, 3, 4, 5, 6
REQUEST, RESPONSE, CHUNK, END, CANCEL, BYE = 7, 8, 9, 10, 11, 12
PING, PONG, MEASURE, COST, CREDIT, METRICS, WAITING = 13, 14, 15, 16, 17, 18, 19
SOURCES, PATCH, PATCHED, HIBERNATE = 20, 21, 22, 23

META, MORE, REQUEST_ID, VALUES = 1, 2, 4, 8
_KNOWN_FLAGS = META | MORE | REQUEST_ID | VALUES
#: The flags of requests that may have a name in the log.
NAMED = META | REQUEST_ID

JSON_ITEMS, TEXT_ITEMS, BYTES_ITEMS = 0, 1, 2

_ROOM = 256 * 1024
# The number of receives without a large body after which its memory is released.
_SMALL_ROUNDS = 64
# The most memory that is reserved for a frame by its header alone, which may be wrong.
_TRUSTED_ROOM = 16 * 1024 * 1024
# The body of a large frame begins at a multiple of this in memory, as the arrays in it need it.
_ALIGNMENT = 16


class FrameError(Exception):
    """The bytes are not a frame; the connection is of no more use."""


def misplaced(kind: Any) -> FrameError:
    """Returns the error of a frame that may not come now."""
    return FrameError(f"a frame of kind {kind} has no place here")


def encode(
    kind: Any, payload: Payload = b"", *, flags: int = 0, status: int = 0, id: int = 0
) -> bytes:
    """Returns the bytes of one frame."""
    return HEADER.pack(len(payload), kind, flags, status, id) + payload


def encode_message(kind: Any, message: dict[str, Any], *, id: int = 0) -> bytes:
    """Returns the bytes of a frame that carries this message as JSON."""
    text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return encode(kind, text.encode(), id=id)


def with_meta(meta: dict[str, Any], body: Payload) -> bytes:
    """Returns a payload that has this JSON in front of the body."""
    text: bytes = dumps(meta, "the metadata")
    return LENGTH.pack(len(text)) + text + body


def split_request_id(payload: Payload) -> tuple[str, Payload]:
    """Returns the id in front of a request's payload, and the rest as a view."""
    end = 1 + payload[0] if payload else 1
    if len(payload) < end:
        raise FrameError("the id of a request runs past its frame")
    return str(payload[1:end], "latin-1"), payload[end:]


def split_meta(payload: Payload) -> tuple[dict[str, Any], Payload]:
    """Returns the JSON in front of a payload, and the body as a view."""
    if len(payload) < LENGTH.size:
        raise FrameError("the metadata runs past its frame")
    start = LENGTH.size + LENGTH.unpack_from(payload)[0]
    if len(payload) < start:
        raise FrameError("the metadata runs past its frame")
    return read_message(payload[LENGTH.size : start]), payload[start:]


def read_message(text: Payload) -> dict[str, Any]:
    """Returns the JSON object that a payload is."""
    try:
        message = loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a message is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise FrameError("a message is not a JSON object")
    return message


class _Room(bytearray):
    """A buffer of a reader.

    Attributes:
        is_kept: Whether values refer to its bytes, so that it cannot be used again.
    """

    is_kept = False


def kept(payload: Payload) -> Payload:
    """Returns a payload that stays valid: the view itself, whose buffer the reader then gives up,
    or a copy where the payload is small."""
    room = payload.obj if isinstance(payload, memoryview) else None
    # A larger buffer was made for one frame.
    if isinstance(room, _Room) and len(room) > _ROOM:
        room.is_kept = True
        return payload
    return bytes(payload)


class FrameReader:
    """Cuts frames out of a socket.

    A frame is ``(kind, flags, status, id, payload)``; the payload is a view that is valid until
    the next call of :meth:`receive`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._buffer = memoryview(_Room(_ROOM))
        self._start = 0
        self._end = 0
        # Rounds since a large body came.
        self._small = 0

    def next(self) -> Frame | None:
        """Returns the next frame that is whole, or None."""
        start = self._start
        if self._end - start < HEADER.size:
            return None
        length, kind, flags, status, id = HEADER.unpack_from(self._buffer, start)
        if length > MAX_PAYLOAD_BYTES:
            raise FrameError(f"a payload of {length} bytes is over the limit")
        if not HELLO <= kind <= HIBERNATE or flags & ~_KNOWN_FLAGS:
            raise FrameError(f"unknown frame kind {kind} or flags {flags}")
        body = start + HEADER.size
        end = body + length
        if self._end < end:
            return None
        self._start = end
        return kind, flags, status, id, self._buffer[body:end]

    def has_more(self) -> bool:
        """Returns whether bytes have arrived that :meth:`next` has not returned."""
        return self._end > self._start

    def receive(self) -> bool:
        """Blocks until bytes come. Returns False when the connection has ended."""
        self._make_room()
        # A thread that blocks in `recv` is also woken each time the server has read what was sent.
        self._readable.poll()
        count = self._sock.recv_into(self._buffer[self._end :])
        self._end += count
        return count > 0

    def poll(self) -> bool | None:
        """Takes what has come, without blocking.

        Returns False when the connection has ended, and None when nothing is there.
        """
        self._make_room()
        try:
            count = self._sock.recv_into(self._buffer[self._end :], 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        self._end += count
        return count > 0

    def _make_room(self) -> None:
        start, held = self._start, self._end - self._start
        if held == 0:
            self._keep_or_shrink()
            self._start = self._end = 0
            return
        needed = HEADER.size
        if held >= HEADER.size:
            needed += HEADER.unpack_from(self._buffer, start)[0]
        size = len(self._buffer)
        is_growing = start < _ALIGNMENT and size >= _TRUSTED_ROOM
        if self._end < size and (is_growing or start + needed <= size):
            return
        # Never in place: a view of the old buffer may still be in use.
        room = min(needed, max(_TRUSTED_ROOM, 4 * held))
        before = -self._lead() % _ALIGNMENT
        fresh = memoryview(_Room(max(_ROOM, before + room)))
        fresh[before : before + held] = self._buffer[start : self._end]
        self._buffer, self._start, self._end = fresh, before, before + held

    def _lead(self) -> int:
        """Returns the bytes in front of the body of the next frame, as far as they have come."""
        buffer, at = self._buffer[self._start : self._end], HEADER.size
        if len(buffer) <= at:
            return at
        flags = buffer[5]
        if flags & REQUEST_ID:
            at += 1 + buffer[at]
        if flags & META and len(buffer) >= at + LENGTH.size:
            at += LENGTH.size + int(LENGTH.unpack_from(buffer, at)[0])
        return at

    def _keep_or_shrink(self) -> None:
        """Keeps the room of a large body for the next one, unless none has come for a while."""
        if len(self._buffer) == _ROOM:
            return
        self._small = 0 if self._end > _ROOM else self._small + 1
        room = self._buffer.obj
        if self._small > _SMALL_ROUNDS or (isinstance(room, _Room) and room.is_kept):
            self._buffer = memoryview(_Room(_ROOM))

    def message(self, *expected: int) -> tuple[int | None, dict[str, Any] | None]:
        """Blocks for one frame that carries a message; returns its kind and the message.

        Returns ``(None, None)`` when the connection has ended.
        """
        frame = self.next()
        while frame is None:
            if not self.receive():
                return None, None
            frame = self.next()
        kind, _, _, _, payload = frame
        if kind not in expected:
            raise misplaced(kind)
        return kind, read_message(payload)
