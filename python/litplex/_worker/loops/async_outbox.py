"""Answers on their way out of an event loop, which never waits for the socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from litplex._worker.loops.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from litplex._worker.loops.outbox import Piece


class AsyncOutbox(Outbox):
    """Sends together what one turn of the event loop brings.

    Args:
        sock: The data connection.
        loop: The event loop.
        on_lost: Called on the loop when the server has gone.
    """

    def __init__(
        self, sock: socket.socket, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._on_lost = on_lost
        self._is_scheduled = False
        self._is_lost = False
        self._under_way: set[asyncio.Task[None]] = set()
        # Bytes that the socket had no room for; guarded by `_sending`, as the helper also sends.
        self._rest: deque[memoryview] = deque()
        super().__init__(sock)

    def add(self, piece: Piece, *, hold: bool) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._end_turn)
            # Only the responses of one turn show how fast the hooks are.
            self.resume()
        super().add(piece, hold=hold)

    def is_empty(self) -> bool:
        """Returns whether everything is sent, or can never be sent."""
        return self._is_lost or not (self._held or self._rest)

    async def finish(self) -> None:
        """Waits until the background tasks of what was sent have ended."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _follow(self, background: Any) -> None:
        # The helper sends, too.
        self._call(self._begin, background)

    def _begin(self, background: Any) -> None:
        from litplex._worker.wire import background_tasks

        task = self._loop.create_task(background_tasks.run(background))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _end_turn(self) -> None:
        self._is_scheduled = False
        self.flush()

    def _send(self, data: bytes) -> None:
        if self._is_lost:
            return
        if self._rest:
            self._rest.append(memoryview(data))
            return
        sent = self._send_some(data)
        if sent < len(data) and not self._is_lost:
            self._rest.append(memoryview(data)[sent:])
            self._call(self._loop.add_writer, self._sock, self._send_rest)

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            self._is_lost = True
            self._call(self._on_lost)
            return 0

    def _send_rest(self) -> None:
        with self._sending:
            while self._rest and not self._is_lost:
                sent = self._send_some(self._rest[0])
                if sent < len(self._rest[0]):
                    self._rest[0] = self._rest[0][sent:]
                    break
                self._rest.popleft()
            if self._is_lost or not self._rest:
                self._loop.remove_writer(self._sock)

    def _call(self, function: Callable[..., object], *args: Any) -> None:
        # The helper may come here when the loop has been closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)
