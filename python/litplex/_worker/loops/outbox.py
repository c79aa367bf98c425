"""Responses on their way out, sent together if that delays none of them.

One send for many answers is worth a third of the throughput of a fast model. An answer may be held
back only while the model is fast; should it turn slow with answers held, a helper thread sends
them, so that none waits behind a computation that is not its own.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any, Union

from litplex._worker.wire import frames
from litplex._worker.wire.encode import Followed

if TYPE_CHECKING:
    import socket

#: A frame, or an item of a stream: its id, kind and bytes.
Piece = Union[bytes, tuple[int, int, bytes]]

HELD_AT_MOST = 64
HOLD_SECONDS = 0.001
# A model or generator that takes longer between two answers sends each at once.
FAST_SECONDS = 0.0001
_LARGE_BYTES = 64 * 1024
# The longest time between two looks of the helper. For each it waits for the interpreter, for up to
# 5 ms, and each system call of the main thread then wakes it in vain: one look each millisecond
# takes a sixth of a fast model's throughput.
_LONGEST_PAUSE_SECONDS = 0.064
# Looks without anything held after which the helper sleeps until it is needed.
_IDLE_LOOKS = 4

_now = time.perf_counter


class Outbox:
    """A queue of frames to send; the main thread fills it, and it or the helper empties it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        # Frames, and items of streams as (id, kind, bytes) that are packed when they are sent.
        self._held: deque[Any] = deque()
        self._sending = threading.Lock()
        self._since = 0.0
        self._last = _now()
        self._gap = 1.0
        self._helper_sleeps = True
        self._wake_helper = threading.Event()
        self._is_over = False
        threading.Thread(target=self._help, name="litplex-flush", daemon=True).start()

    def add(self, piece: Piece, *, hold: bool) -> None:
        """Takes a frame or an item of a stream; sends all that is held unless it may wait."""
        now = _now()
        gap, self._last = now - self._last, now
        self._gap += 0.2 * (gap - self._gap)
        held = self._held
        if not held:
            self._since = now
        held.append(piece)
        if (
            hold
            and self._gap < FAST_SECONDS
            and len(held) < HELD_AT_MOST
            and now - self._since < HOLD_SECONDS
        ):
            if self._helper_sleeps:
                self._helper_sleeps = False
                self._wake_helper.set()
            return
        self.flush()

    def add_all(self, pieces: list[Piece], *, hold: bool) -> None:
        """Takes several, in their order, as :meth:`add` takes one."""
        if not self._held:
            self._since = _now()
        self._held.extend(pieces[:-1])
        self.add(pieces[-1], hold=hold)

    def put(self, frame: bytes) -> None:
        """Takes a frame of several that come at once; :meth:`flush` follows soon."""
        self._held.append(frame)

    def resume(self) -> None:
        """Forgets the time since the last answer, in which there was nothing to do."""
        self._last = _now()

    def end(self) -> None:
        """Ends the helper: nothing more will come."""
        self._is_over = True
        self._wake_helper.set()

    def flush(self) -> None:
        """Sends what is held."""
        held = self._held
        with self._sending:
            if not held:
                return
            # The usual case of a model that computes one request after another: one response.
            if len(held) == 1 and type(held[0]) is bytes:
                self._send(held.popleft())
                return
            pieces, large, backgrounds = self._take()
            if large:
                for piece in pieces:
                    self._send(piece)
            elif pieces:
                self._send(b"".join(pieces))
        for background in backgrounds:
            self._follow(background)

    def _follow(self, background: Any) -> None:
        """Has done what comes after an answer, now that it is sent."""
        from litplex._worker.wire import background_tasks

        background_tasks.start(background)

    def _send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def _take(self) -> tuple[list[bytes], bool, list[Any]]:
        held, large = self._held, False
        pieces: list[bytes] = []
        backgrounds: list[Any] = []
        while held:
            piece = held.popleft()
            if isinstance(piece, tuple):
                self._pack_items(piece, pieces)
                continue
            # The exact type first: most frames are plain bytes.
            if type(piece) is not bytes and isinstance(piece, Followed):
                backgrounds.append(piece.background)
            large = large or len(piece) > _LARGE_BYTES
            pieces.append(piece)
        return pieces, large, backgrounds

    def _pack_items(self, first: tuple[int, int, bytes], pieces: list[bytes]) -> None:
        """Packs an item and those after it, of one stream and kind, into one frame."""
        id, kind, item = first
        items, held = [item], self._held
        while held:
            piece = held[0]
            if type(piece) is not tuple or piece[0] != id or piece[1] != kind:
                break
            items.append(held.popleft()[2])
        lengths = map(frames.LENGTH.pack, map(len, items))
        packed = b"".join(chain.from_iterable(zip(lengths, items)))
        pieces.append(frames.encode(frames.CHUNK, packed, status=kind, id=id))

    def _help(self) -> None:
        # Short after an answer was held for too long, longer with each look that finds none.
        pause = HOLD_SECONDS
        while True:
            self._wake_helper.wait()
            if self._is_over:
                return
            self._wake_helper.clear()
            idle = 0
            while idle < _IDLE_LOOKS:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                idle = 0 if self._held else idle + 1
                if self._held and _now() - self._since >= HOLD_SECONDS:
                    self._try_flush()
                    pause = HOLD_SECONDS
            self._helper_sleeps = True
            # Something may have been held between the last look and the line above.
            self._try_flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
        except OSError:
            # The main thread meets the same end at its next send or receive.
            self._held.clear()
