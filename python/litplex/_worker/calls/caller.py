"""All forms of calls, over one connection."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from litplex._worker import current
from litplex._worker.calls.link import Link
from litplex._worker.calls.pending import Pending, say_waiting
from litplex._worker.wire import frames
from litplex._worker.wire.json import Unsendable, dumps
from litplex._worker.wire.values import pack

if TYPE_CHECKING:
    import socket

    from litplex._calls.call import Call
    from litplex._calls.transport import Target
    from litplex._worker.wire.frames import Payload

# Requests of `map` are sent together if their items come within this time.
_TOGETHER_SECONDS = 0.001
_TOGETHER_BYTES = 256 * 1024
# A source whose items take longer computes them: each is sent at once.
_FAST_SECONDS = 0.00005
# With more calls begun than this, responses that are not asked for are taken as they come.
_MANY = 64

_END = object()
_now = time.perf_counter


class Caller:
    """Makes the calls of a worker, in all forms of ``_calls/transport.py``."""

    def __init__(
        self,
        sock: socket.socket,
        reader: frames.FrameReader,
        credit: int,
        is_cancelled: Callable[[Iterable[int]], bool],
    ) -> None:
        self._link = Link(sock, reader, credit, is_cancelled)
        # What the metadata of requests to a callee have in common.
        self._heads: dict[Target, str] = {}
        self._begun = 0

    def is_lost(self) -> bool:
        """Returns whether the connection has ended."""
        return self._link.is_lost

    def call(self, target: Target, x: Any) -> Any:
        call = self._begin(target, x, waits=True)
        try:
            self._link.wait((call,), lambda: call.is_done)
        except BaseException:
            call.cancel()
            raise
        return call.value()

    def later(self, target: Target, x: Any) -> Call:
        self._begun += 1
        if self._begun % _MANY == 0:
            self._link.look()
        return self._begin(target, x, waits=False)

    def stream(self, target: Target, x: Any) -> Iterator[Any]:
        return Stream(self._link, self._begin(target, x, waits=True, is_read=True))

    def map(
        self, target: Target, items: Iterable[Any], in_flight: int, return_exceptions: bool
    ) -> Iterator[Any]:
        window = _Window(self, target, in_flight, return_exceptions, hasattr(items, "__len__"))
        source = iter(items)
        try:
            while True:
                window.fill(source)
                if window.is_empty():
                    return
                call = window.calls[0]
                if not call.done():
                    say_waiting((call,))
                    self._link.wait((call,), lambda: window.calls[0].is_done)
                yield window.pop()
        finally:
            window.cancel()

    async def acall(self, target: Target, x: Any) -> Any:
        call = self._begin(target, x, waits=True)
        try:
            await self._link.wait_async((call,), lambda: call.is_done)
        except BaseException:
            call.cancel()
            raise
        return call.value()

    def astream(self, target: Target, x: Any) -> AsyncIterator[Any]:
        return AsyncStream(self._link, self._begin(target, x, waits=True, is_read=True))

    async def amap(
        self, target: Target, items: Any, in_flight: int, return_exceptions: bool
    ) -> AsyncIterator[Any]:
        window = _Window(self, target, in_flight, return_exceptions, hasattr(items, "__len__"))
        is_async = hasattr(items, "__aiter__")
        source = items.__aiter__() if is_async else iter(items)
        try:
            while True:
                await window.fill_async(source) if is_async else window.fill(source)
                if window.is_empty():
                    return
                call = window.calls[0]
                if not call.done():
                    say_waiting((call,))
                    await self._link.wait_async((call,), lambda: window.calls[0].is_done)
                yield window.pop()
        finally:
            window.cancel()

    def _begin(self, target: Target, x: Any, *, waits: bool, is_read: bool = False) -> Pending:
        call, pieces = self.prepare(target, x, waits=waits, is_read=is_read)
        self._link.begin_soon(call, pieces)
        return call

    def send(self, calls: list[Pending], pieces: list[Payload]) -> None:
        """Begins calls that were prepared."""
        self._link.begin(calls, pieces)

    def failed(self, target: Target, error: Exception) -> Pending:
        """Returns a call that failed before it was begun."""
        call = Pending(self._link, target, is_read=False, waits=False)
        call.fail(error)
        return call

    def prepare(
        self, target: Target, x: Any, *, waits: bool, is_read: bool = False
    ) -> tuple[Pending, list[Payload]]:
        """Returns a call, and the pieces of the frame that begins it.

        Raises:
            RuntimeError: no request is computed here.
            ValueError: the value cannot be sent.
        """
        parents = current.ids() or _refuse(target)
        if target.types is not None:
            x = target.types.dump(x, target.shown)
        try:
            content, body = pack(x, "x")
        except Unsendable as error:
            raise ValueError(
                f"the input of `{target.shown}` cannot be sent: {error.fault}; send values of "
                "JSON, bytes or numpy arrays of numbers"
            ) from error.__cause__
        head = self._heads.get(target) or self._head(target)
        described = '"json"' if content == "json" else dumps(content).decode()
        text = (
            f'{{"content":{described},"call":{{{head},"parents":[{",".join(map(str, parents))}],'
            f'"waits":{"true" if waits else "false"}{_STREAM if is_read else ""}}}}}'
        ).encode()
        length = frames.LENGTH.size + len(text) + sum(map(len, body))
        if length > frames.MAX_PAYLOAD_BYTES:
            raise ValueError(f"the input of `{target.shown}` has {length} bytes; 1 GiB is the most")
        call = Pending(self._link, target, is_read=is_read, waits=waits)
        flags = frames.META | frames.VALUES
        header = frames.HEADER.pack(length, frames.REQUEST, flags, 0, call.id)
        return call, [header, frames.LENGTH.pack(len(text)), text, *body]

    def _head(self, target: Target) -> str:
        head = f'"endpoint":{dumps(target.name).decode()}'
        if target.timeout is not None:
            head += f',"timeout":{float(target.timeout)!r}'
        if len(self._heads) < 1024:
            self._heads[target] = head
        return head


_STREAM = ',"stream":true'


def _refuse(target: Target) -> Any:
    if current.is_shared:
        advice = "call in a hook that requests pass, and in threads that such a hook waits for"
    else:
        advice = (
            "call in a hook that requests pass and in its tasks; start threads with "
            "`asyncio.to_thread`, which keeps the request of the hook"
        )
    raise RuntimeError(f"`{target.shown}` is called where no request is computed; {advice}")


class _Window:
    """The calls of a ``map`` whose results were not yielded yet.

    New ones are begun when half of those that may be in flight are answered: the callee then gets
    many at once, and batches them, and has others to compute meanwhile.

    Attributes:
        calls: The calls, in the order of the items.
    """

    def __init__(
        self,
        caller: Caller,
        target: Target,
        in_flight: int,
        return_exceptions: bool,
        is_ready: bool,
    ) -> None:
        self.calls: deque[Pending] = deque()
        self._caller = caller
        self._target = target
        self._in_flight = in_flight
        self._returns = return_exceptions
        # Whether all items are there: no time passes between two of them.
        self._is_ready = is_ready
        self._is_over = False
        self._error: Exception | None = None
        self._room = 0
        self._prepared: list[Pending] = []
        self._pieces: list[Payload] = []
        self._bytes = 0
        self._drawn = 0.0

    def fill(self, source: Iterator[Any]) -> None:
        """Begins the calls of the next items, as many as may be in flight."""
        self._drawn = 0.0
        while self._wants_more():
            since = _now()
            try:
                x = next(source, _END)
            except Exception as error:  # noqa: BLE001  (raised after the results before it)
                self._break_off(error)
            else:
                self._take(x, _now() - since)
            if self._is_slow() and self._has_result():
                break
        self._send()

    async def fill_async(self, source: AsyncIterator[Any]) -> None:
        """Begins the calls of the next items of an asynchronous iterator."""
        self._drawn = 0.0
        while self._wants_more():
            since = _now()
            try:
                x = await source.__anext__()
            except StopAsyncIteration:
                self._take(_END, 0.0)
            except Exception as error:  # noqa: BLE001  (raised after the results before it)
                self._break_off(error)
            else:
                self._take(x, _now() - since)
            if self._is_slow() and self._has_result():
                break
        self._send()

    def _wants_more(self) -> bool:
        """Returns whether the next item is to be taken."""
        if self._is_over:
            return False
        if self._room <= 0:
            unanswered = sum(not call.is_done for call in self.calls)
            if unanswered > self._in_flight // 2:
                return False
            self._room = min(self._in_flight - unanswered, 2 * self._in_flight - len(self.calls))
        return self._room > 0

    def _take(self, x: Any, seconds: float) -> None:
        """Begins the call of an item that took this long to come, or notes that there is no
        more."""
        self._drawn += seconds
        if x is _END:
            self._is_over = True
            return
        self._room -= 1
        try:
            call, pieces = self._caller.prepare(self._target, x, waits=False)
        except ValueError as error:
            self.calls.append(self._caller.failed(self._target, error))
            return
        self.calls.append(call)
        self._prepared.append(call)
        self._pieces += pieces
        self._bytes += sum(map(len, pieces))
        # The next item may take as long.
        is_late = seconds > _FAST_SECONDS and not self._is_ready
        if is_late or self._room <= 0 or self._bytes > _TOGETHER_BYTES or self._is_slow():
            self._send()

    def _is_slow(self) -> bool:
        """Returns whether the source of the items took so long that no result is to wait for it."""
        return not self._is_ready and self._drawn > _TOGETHER_SECONDS

    def _has_result(self) -> bool:
        """Returns whether the next result is there."""
        return bool(self.calls) and self.calls[0].done()

    def _send(self) -> None:
        """Sends the requests that are ready."""
        if self._prepared:
            prepared, pieces = self._prepared, self._pieces
            self._prepared, self._pieces, self._bytes = [], [], 0
            self._caller.send(prepared, pieces)

    def _break_off(self, error: Exception) -> None:
        """Notes that no more items come, because their source raised."""
        self._is_over, self._error = True, error

    def is_empty(self) -> bool:
        """Returns whether all results were yielded.

        Raises:
            Exception: what the source of the items raised.
        """
        if not self.calls and self._error is not None:
            raise self._error
        return not self.calls

    def pop(self) -> Any:
        """Returns the next result, or its exception."""
        call = self.calls.popleft()
        try:
            return call.value()
        except Exception as error:
            if not self._returns:
                raise
            return error

    def cancel(self) -> None:
        """Cancels the calls that are not done."""
        for call in self.calls:
            call.cancel()


class _Items:
    """The items of a stream that have come, and the rest."""

    def __init__(self, link: Link, call: Pending) -> None:
        self._link = link
        self._call = call
        self._now: Iterator[Any] = iter(())
        self._is_over = False

    def _has_come(self) -> bool:
        return bool(self._call.chunks) or self._call.is_done

    def _say_waiting(self) -> None:
        if not self._has_come():
            say_waiting((self._call,))

    def _next(self) -> Any:
        """Returns the next item that has come; `_END` where there is none, at the end too."""
        item = next(self._now, _END)
        while item is _END and self._call.chunks:
            kind, payload = self._call.take()
            self._call.spend(len(payload))
            self._link.pay()
            self._now = self._call.items(kind, payload)
            item = next(self._now, _END)
        return item

    def _end(self) -> Any:
        """Returns the response that is no stream, as an item; or `_END`.

        Raises:
            CallError: the call failed.
        """
        if self._is_over:
            return _END
        self._is_over = True
        self._call.check()
        return _END if self._call.is_stream() else self._call.value()

    def close(self) -> None:
        """Cancels the call, unless it has ended."""
        self._is_over = True
        self._now = iter(())
        self._call.cancel()
        self._call.chunks.clear()

    def __del__(self) -> None:
        if not self._call.is_done:
            self._call.cancel()


class Stream(_Items):
    """The items of a stream; closing it cancels the call."""

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        item = self._next()
        while item is _END:
            if not self._is_over:
                self._say_waiting()
                self._link.wait((self._call,), self._has_come)
            item = self._next()
            if item is _END and self._call.is_done:
                item = self._end()
                if item is _END:
                    raise StopIteration
        return item

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_Items):
    """The items of a stream, for ``async`` hooks."""

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Any:
        item = self._next()
        while item is _END:
            if not self._is_over:
                self._say_waiting()
                await self._link.wait_async((self._call,), self._has_come)
            item = self._next()
            if item is _END and self._call.is_done:
                item = self._end()
                if item is _END:
                    raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Cancels the call, unless it has ended."""
        self.close()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
