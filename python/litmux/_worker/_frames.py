"""Frames of the worker protocol; see ``protocol/PROTOCOL.md``."""

import json
import struct

HEADER = struct.Struct("<IBBHQ")
LENGTH = struct.Struct("<I")
MAX_PAYLOAD_BYTES = 1 << 30
PROTOCOL = 1

HELLO, WELCOME, REFUSE, SETUP, READY, FAILED = 1, 2, 3, 4, 5, 6
REQUEST, RESPONSE, CHUNK, END, CANCEL, BYE = 7, 8, 9, 10, 11, 12

META, MORE = 1, 2
_KNOWN_FLAGS = META | MORE

JSON_ITEMS, TEXT_ITEMS, BYTES_ITEMS = 0, 1, 2

_ROOM = 256 * 1024


class FrameError(Exception):
    """The bytes are not a frame; the connection is of no more use."""


def encode(kind, payload=b"", *, flags=0, status=0, id=0):
    """Returns the bytes of one frame."""
    return HEADER.pack(len(payload), kind, flags, status, id) + payload


def encode_message(kind, message):
    """Returns the bytes of a frame that carries this message as JSON."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return encode(kind, text.encode())


def with_meta(meta, body):
    """Returns a payload that has this JSON in front of the body."""
    text = json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode()
    return LENGTH.pack(len(text)) + text + body


def split_meta(payload):
    """Returns the JSON in front of a payload, and the body as a view."""
    if len(payload) < LENGTH.size:
        raise FrameError("the metadata runs past its frame")
    start = LENGTH.size + LENGTH.unpack_from(payload)[0]
    if len(payload) < start:
        raise FrameError("the metadata runs past its frame")
    return json.loads(bytes(payload[LENGTH.size : start])), payload[start:]


class FrameReader:
    """Cuts frames out of a socket.

    A frame is ``(kind, flags, status, id, payload)``; the payload is a view that is valid until
    the next call of :meth:`receive`.
    """

    def __init__(self, sock):
        self._sock = sock
        self._buffer = memoryview(bytearray(_ROOM))
        self._start = 0
        self._end = 0

    def next(self):
        """Returns the next frame that is whole, or None."""
        start = self._start
        if self._end - start < HEADER.size:
            return None
        length, kind, flags, status, id = HEADER.unpack_from(self._buffer, start)
        if length > MAX_PAYLOAD_BYTES:
            raise FrameError(f"a payload of {length} bytes is over the limit")
        if not HELLO <= kind <= BYE or flags & ~_KNOWN_FLAGS:
            raise FrameError(f"unknown frame kind {kind} or flags {flags}")
        body = start + HEADER.size
        end = body + length
        if self._end < end:
            return None
        self._start = end
        return kind, flags, status, id, self._buffer[body:end]

    def has_more(self):
        """Tells whether bytes have arrived that :meth:`next` has not returned."""
        return self._end > self._start

    def receive(self):
        """Blocks until bytes come. Returns False when the connection has ended."""
        self._make_room()
        count = self._sock.recv_into(self._buffer[self._end :])
        self._end += count
        return count > 0

    def _make_room(self):
        start, held = self._start, self._end - self._start
        if held == 0:
            self._start = self._end = 0
            if len(self._buffer) > _ROOM:
                # One large body must not be paid for with memory ever after.
                self._buffer = memoryview(bytearray(_ROOM))
            return
        needed = HEADER.size
        if held >= HEADER.size:
            needed += HEADER.unpack_from(self._buffer, start)[0]
        if start + needed <= len(self._buffer) and self._end < len(self._buffer):
            return
        # Never in place: a view of the old buffer may still be in use.
        fresh = memoryview(bytearray(max(_ROOM, needed)))
        fresh[:held] = self._buffer[start : self._end]
        self._buffer, self._start, self._end = fresh, 0, held

    def message(self, *expected):
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
            raise FrameError(f"a frame of kind {kind} has no place here")
        return kind, json.loads(bytes(payload))
