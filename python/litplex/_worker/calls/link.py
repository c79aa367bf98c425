"""The connection for calls, which all threads and event loops of the worker share.

No thread belongs to it. Of those that wait for a response, one is the **leader** and reads the
frames of all; the others follow, and are woken when theirs has come. An event loop on which calls
wait leads with its own reader. A call of a single thread so costs no switch of threads.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from litplex._calls.transport import FORKED, running_loop
from litplex._worker import current
from litplex._worker.wire import frames

if TYPE_CHECKING:
    import asyncio

    from litplex._worker.calls.pending import Pending
    from litplex._worker.wire.frames import Frame, Payload

# Frames up to this size are joined into one write.
_JOINED_BYTES = 64 * 1024
# The most pieces of one write; systems take at least 1024.
_MOST_PIECES = 512
# The time within which a hook is told that it is cancelled, once its calls are.
_TELLING_SECONDS = 0.5
# The time for which a thread relies on an event loop to lead: loops stop.
_TRUST_SECONDS = 0.1


class Link:
    """Sends requests and hands each response to the call that waits for it.

    Args:
        sock: The connection.
        reader: The reader of its frames.
        credit: The bytes of a stream that the server may send before it is granted more.
        is_cancelled: Returns whether an item of these ids was cancelled.
    """

    def __init__(
        self,
        sock: socket.socket,
        reader: frames.FrameReader,
        credit: int,
        is_cancelled: Callable[[Iterable[int]], bool],
    ) -> None:
        self._process = os.getpid()
        self._sock = sock
        self._fd = sock.fileno()
        self._reader = reader
        self.credit = credit
        self._is_cancelled = is_cancelled
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(sock, select.POLLIN | select.POLLOUT)
        self._sending = threading.Lock()
        # Frames that go out with the next write.
        self._held: deque[bytes] = deque()
        # The event loop that writes what is held at the end of its turn.
        self._turn: asyncio.AbstractEventLoop | None = None
        # Guards all that follows; held for a few instructions.
        self._state = threading.Lock()
        self._calls: dict[int, Pending] = {}
        self._leader: Any = None
        self._leading_thread = 0
        self._followers: dict[threading.Lock, None] = {}
        # The event loops on which calls wait, with their number.
        self._loops: dict[asyncio.AbstractEventLoop, int] = {}
        self.is_lost = False
        self.next_id = itertools.count(1).__next__

    # ------------------------------------------------------------------ writing

    def begin(self, calls: Iterable[Pending], pieces: list[Payload]) -> None:
        """Sends the requests of calls, in one write if they are small."""
        if self._add(calls):
            self.send(pieces)

    def begin_soon(self, call: Pending, pieces: list[Payload]) -> None:
        """Sends the request of a call. On an event loop the first of a turn is sent at once, the
        others together at the end of the turn."""
        loop = running_loop()
        if loop is None or self._turn is not loop:
            self.begin((call,), pieces)
            if loop is not None:
                self._turn = loop
                loop.call_soon(self._end_turn)
        elif self._add((call,)):
            self._held.append(b"".join(pieces))

    def _add(self, calls: Iterable[Pending]) -> bool:
        """Adds calls; returns False, and fails them, if the connection has ended."""
        with self._state:
            for call in calls:
                self._calls[call.id] = call
            is_lost = self.is_lost
        if is_lost:
            self._lose("it is closed")
        return not is_lost

    def _end_turn(self) -> None:
        self._turn = None
        self.pay()

    def forget(self, call: Pending) -> None:
        """Drops a call, and cancels it where it has no response yet."""
        if os.getpid() != self._process:
            return  # What a process that a hook forked off drops is not its own.
        if self._calls.pop(call.id, None) is not None and not self.is_lost:
            self.send([frames.encode(frames.CANCEL, id=call.id)])

    def owe(self, call: Pending, count: int) -> None:
        """Lets the server soon send this many bytes more of a stream."""
        credit = frames.LENGTH.pack(count)
        self._held.append(frames.encode(frames.CREDIT, credit, id=call.id))

    def pay(self) -> None:
        """Sends the frames that are held."""
        if self._held and not self.is_lost:
            self.send([])

    def send(self, pieces: list[Payload]) -> None:
        """Writes frames; what becomes of them if the connection ends is told to the calls."""
        self._check_process()
        with self._sending:
            try:
                while pieces or self._held:
                    held = [self._held.popleft() for _ in range(len(self._held))]
                    pieces = [*held, *pieces]
                    if sum(map(len, pieces)) <= _JOINED_BYTES:
                        pieces = [b"".join(pieces)]
                    self._write(pieces)
                    pieces = []
            except OSError as error:
                self._lose(str(error))
            except BaseException:
                # A handler of a signal raised: the frame may be sent in part.
                self._lose("an exception interrupted it")
                raise

    def _write(self, pieces: list[Payload]) -> None:
        rest = [memoryview(piece) for piece in pieces if len(piece)]
        while rest:
            try:
                sent = self._sock.sendmsg(rest[:_MOST_PIECES], [], socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._read_until_writable()
                continue
            done = 0
            while done < len(rest) and sent >= len(rest[done]):
                sent -= len(rest[done])
                done += 1
            rest = rest[done:]
            if sent:
                rest[0] = rest[0][sent:]

    def _read_until_writable(self) -> None:
        """Reads while the server takes nothing: it may wait for its responses to be read."""
        me = threading.get_ident()
        with self._state:
            leads = self._may_lead()
            if leads:
                self._leader, self._leading_thread = self, me
            may_read = self._leading_thread == me
        try:
            if not may_read:
                room = select.poll()
                room.register(self._fd, select.POLLOUT)
                room.poll(_TRUST_SECONDS * 1000)
            elif self._writable.poll()[0][1] & select.POLLIN:
                self._take()
        finally:
            if leads:
                with self._state:
                    self._step_down(self)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(FORKED)

    # ------------------------------------------------------------------ waiting

    def wait(self, calls: Iterable[Pending], is_enough: Callable[[], object]) -> None:
        """Blocks until a condition of these calls holds. A hook whose request was cancelled knows
        so, too, when this returns."""
        if not is_enough():
            self._block(calls, is_enough)
        if any(call.is_withdrawn() for call in calls):
            end = time.monotonic() + _TELLING_SECONDS
            while not self._is_cancelled(current.ids()) and time.monotonic() < end:
                time.sleep(0.001)

    def _block(self, calls: Iterable[Pending], is_enough: Callable[[], object]) -> None:
        self._check_process()
        # It is locked while this thread follows, and released to wake it.
        me = threading.Lock()
        try:
            while self._lead_or_follow(me, calls, is_enough):
                if self._leader is me:
                    # An exception of a signal's handler may end this, and no frame is lost.
                    self._readable.poll()
                    self._take()
                    self.pay()
                else:
                    me.acquire(timeout=_TRUST_SECONDS if self._loops else -1)
        finally:
            with self._state:
                self._followers.pop(me, None)
                self._step_down(me)

    def _lead_or_follow(
        self, me: threading.Lock, calls: Iterable[Pending], is_enough: Callable[[], object]
    ) -> bool:
        """Makes a thread the leader, if there is none, or a follower; returns False if there is no
        need to wait any longer."""
        with self._state:
            if is_enough():
                return False
            if self._leader is me:
                return True
            if self._may_lead():
                self._followers.pop(me, None)
                self._leader, self._leading_thread = me, threading.get_ident()
                return True
            if me not in self._followers:
                me.acquire(blocking=False)
                self._followers[me] = None
                for call in calls:
                    call.waiters.append(me)
            return True

    def _may_lead(self) -> bool:
        """Returns whether there is no leader, or an event loop that has stopped or has no calls."""
        leader = self._leader
        if leader is None:
            return True
        is_loop = hasattr(leader, "is_running")
        return is_loop and not (leader in self._loops and leader.is_running())

    def _step_down(self, leader: Any) -> None:
        if self._leader is leader:
            self._leader, self._leading_thread = None, 0
        if self._leader is None:
            self._choose_leader()

    def _choose_leader(self) -> None:
        for loop in list(self._loops):
            try:
                loop.call_soon_threadsafe(self._attach, loop)
            except RuntimeError:
                del self._loops[loop]  # It is closed.
                continue
            if loop.is_running():
                return
        for lock in self._followers:
            del self._followers[lock]
            lock.release()
            return

    def look(self) -> None:
        """Takes what has come, without blocking, unless there is a leader."""
        self.pay()
        with self._state:
            if not self._may_lead():
                return
            self._leader, self._leading_thread = self, threading.get_ident()
        try:
            if self._readable.poll(0):
                self._take()
                self.pay()
        finally:
            with self._state:
                self._step_down(self)

    # ------------------------------------------------------------------ event loops

    async def wait_async(self, calls: Iterable[Pending], is_enough: Callable[[], object]) -> None:
        """Waits on the running event loop until a condition of these calls holds. A task whose
        request was cancelled is cancelled before this returns."""
        loop: asyncio.AbstractEventLoop = running_loop()
        while True:
            with self._state:
                if is_enough():
                    break
                future = loop.create_future()
                for call in calls:
                    call.waiters.append((loop, future))
                self._loops[loop] = self._loops.get(loop, 0) + 1
            try:
                if self._leader is not loop:
                    self._attach(loop)
                await future
            finally:
                self._leave(loop)
        if any(call.is_withdrawn() for call in calls):
            from asyncio import sleep

            await sleep(_TELLING_SECONDS)

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets a loop lead, on its own thread, if there is no leader."""
        with self._state:
            if loop not in self._loops or self._leader is loop or not self._may_lead():
                return
            self._leader, self._leading_thread = loop, threading.get_ident()
        loop.add_reader(self._fd, self._read, loop)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._state:
            left = self._loops.get(loop, 1) - 1
            if left:
                self._loops[loop] = left
                return
            self._loops.pop(loop, None)
            # Where nothing else waits, it keeps its reader for its next call.
            if self._followers or self._loops:
                self._step_down(loop)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._leader is not loop or self.is_lost:
            loop.remove_reader(self._fd)
            return
        self._take()
        self.pay()

    # ------------------------------------------------------------------ reading

    def _take(self) -> None:
        """Hands the frames that have come to their calls."""
        try:
            if self._reader.poll() is False:
                self._lose("the server closed it")
            frame = self._reader.next()
            while frame is not None:
                self._dispatch(frame)
                frame = self._reader.next()
        except (OSError, frames.FrameError) as error:
            self._lose(str(error))
        except BaseException:
            # A frame may be lost.
            self._lose("an exception interrupted it")
            raise

    def _dispatch(self, frame: Frame) -> None:
        kind, flags, status, id, payload = frame
        if kind == frames.CHUNK:
            call = self._calls.get(id)
            if call is not None:
                call.push(status, bytes(payload))
        elif kind in (frames.RESPONSE, frames.END):
            call = self._calls.pop(id, None)
            if call is not None:
                call.finish(kind, status, flags, frames.kept(payload))
        else:
            raise frames.misplaced(kind)
        if call is not None:
            self.wake(call)

    def wake(self, call: Pending) -> None:
        """Wakes what waits for a call."""
        with self._state:
            waiters, call.waiters = call.waiters, []
            for waiter in waiters:
                # A thread may have been woken already.
                if not isinstance(waiter, tuple) and self._followers.pop(waiter, self) is None:
                    waiter.release()
        for waiter in waiters:
            if isinstance(waiter, tuple):
                _wake_loop(*waiter)

    def _lose(self, reason: str) -> None:
        """Ends the connection, and fails all calls."""
        with self._state:
            self.is_lost = True
            lost, self._calls = list(self._calls.values()), {}
        with contextlib.suppress(OSError):
            self._sock.shutdown(2)
        for call in lost:
            call.lose(f"the connection for calls has ended: {reason}")
            self.wake(call)


def _wake_loop(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    if running_loop() is loop:
        _settle(future)
        return
    # The loop may be closed.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, future)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
