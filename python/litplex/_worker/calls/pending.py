"""Calls that were begun, and their responses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from litplex._calls.call import Call
from litplex._calls.errors import CallError
from litplex._calls.transport import refuse_on_loop
from litplex._worker.wire import frames
from litplex._worker.wire.json import MalformedBody, loads
from litplex._worker.wire.values import unpack

if TYPE_CHECKING:
    from litplex._calls.transport import Target
    from litplex._worker.calls.link import Link
    from litplex._worker.wire.frames import Payload

_UNREAD = object()
_CANCELLED = "the call was cancelled by its caller"


class Pending(Call):
    """A call from its request to its response.

    Args:
        link: The connection.
        target: The callee.
        is_read: Whether the caller reads the items of a stream as they come. Otherwise the result
            is the list of them.
        waits: Whether the hook waits for it from its beginning.

    Attributes:
        id: Its number.
        is_done: Whether its response is complete, or was given up.
        waiters: The locks of threads, and the loops and futures of tasks, that wait for it. The
            link guards them.
        chunks: The kinds and payloads of the chunks that were not read yet.
    """

    def __init__(self, link: Link, target: Target, *, is_read: bool, waits: bool) -> None:
        self.id = link.next_id()
        self.is_done = False
        self.waiters: list[Any] = []
        self.chunks: deque[tuple[int, bytes]] = deque()
        self._link = link
        self._target = target
        self._is_read = is_read
        # The number of chunks that the hook had taken when the server was last told that it waits.
        self._told = 0 if waits else -1
        self._taken = 0
        self._has_items = False
        self._unspent = 0
        self._response: Any = None
        self._error: BaseException | None = None
        self._result: Any = _UNREAD

    # ------------------------------------------------------------------ called by the link

    def push(self, kind: int, payload: bytes) -> None:
        """Takes a chunk of items."""
        self._has_items = True
        self.chunks.append((kind, payload))
        if not self._is_read:
            self.spend(len(payload))

    def finish(self, kind: int, status: int, flags: int, payload: Payload) -> None:
        """Takes the response, or the end of the stream."""
        self._response = (kind, status, flags, payload)
        self.is_done = True

    def lose(self, reason: str) -> None:
        """Notes that no response will come."""
        self.fail(CallError(503, reason, [self._target.name]))

    # ------------------------------------------------------------------ called by hooks

    def fail(self, error: BaseException) -> None:
        """Completes the call with an error."""
        if not self.is_done:
            self._error = error
            self.is_done = True

    def done(self) -> bool:
        if not self.is_done:
            self._link.look()
        return self.is_done

    def cancel(self) -> None:
        if not self.is_done:
            self.fail(CallError(499, _CANCELLED, [self._target.name]))
            self._link.forget(self)
            self._link.wake(self)

    def result(self) -> Any:
        if not self.done():
            refuse_on_loop("call.result()", "await call")
            say_waiting((self,))
            self._link.wait((self,), lambda: self.is_done)
        return self.value()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._settled().__await__()

    async def _settled(self) -> Any:
        if not self.is_done:
            say_waiting((self,))
            try:
                await self._link.wait_async((self,), lambda: self.is_done)
            except BaseException:
                self.cancel()
                raise
        return self.value()

    def _wait_with(self, others: list[Call], all_of_them: bool) -> None:
        calls = [self, *(call for call in others if isinstance(call, Pending))]
        self._link.look()
        say_waiting(calls)

        def is_enough() -> bool:
            if all_of_them:
                return all(call.is_done for call in calls)
            return all(call.is_done for call in calls) or any(call.has_failed() for call in calls)

        self._link.wait(calls, is_enough)

    def is_withdrawn(self) -> bool:
        """Returns whether the server has cancelled it: no caller waits for its hook."""
        return self._response is not None and self._response[1] == 499

    def has_failed(self) -> bool:
        """Returns whether the result is an error."""
        if not self.is_done:
            return False
        return self._error is not None or self._response[1] >= 400

    def take(self) -> tuple[int, bytes]:
        """Returns the kind and the payload of the next chunk, which has come."""
        self._taken += 1
        return self.chunks.popleft()

    def waiting(self) -> bytes | None:
        """Returns the frame that tells the server that the hook waits, unless it knows."""
        if self.is_done or self._told == self._taken:
            return None
        self._told = self._taken
        return frames.encode(frames.WAITING, frames.LENGTH.pack(self._taken), id=self.id)

    @property
    def link(self) -> Link:
        """The connection."""
        return self._link

    def spend(self, count: int) -> None:
        """Notes that bytes of chunks were read, and grants as many once they are half of the
        credit."""
        self._unspent += count
        if self._unspent * 2 >= self._link.credit and not self.is_done:
            count, self._unspent = self._unspent, 0
            self._link.owe(self, count)

    def value(self) -> Any:
        """Returns the result of a call that is done.

        Raises:
            CallError: it failed.
        """
        self.check()
        if self._result is _UNREAD:
            self._result = self._read()
        return self._result

    def _read(self) -> Any:
        _, _, flags, payload = self._response
        if self.is_stream():
            return [item for chunk in self.chunks for item in self.items(*chunk)]
        return self._typed(_value(self._target, flags, payload))

    def items(self, kind: int, payload: bytes) -> Iterator[Any]:
        """Yields the items of a chunk."""
        found = _items_of(kind, payload)
        return found if self._target.types is None else map(self._typed, found)

    def _typed(self, value: Any) -> Any:
        types = self._target.types
        return value if types is None else types.read(value, self._target.name)

    def check(self) -> None:
        """Raises the error of a call that is done and failed."""
        if self._error is not None:
            raise self._error
        _, status, flags, payload = self._response
        if status >= 400:
            raise _error_of(self._target, status, flags, payload)

    def is_stream(self) -> bool:
        """Returns whether the response, which is done, is a stream."""
        return self._has_items or bool(self._response[0] == frames.END)


def say_waiting(calls: Sequence[Pending]) -> None:
    """Tells the server that the hook now waits for these calls."""
    told = [frame for frame in (call.waiting() for call in calls) if frame is not None]
    if told:
        calls[0].link.send(list(told))


def _items_of(kind: int, payload: bytes) -> Iterator[Any]:
    """Yields the items of a chunk."""
    convert: Callable[[bytes], Any] = _CONVERTERS[kind]
    at = 0
    while at < len(payload):
        begin = at + frames.LENGTH.size
        at = begin + frames.LENGTH.unpack_from(payload, at)[0]
        yield convert(payload[begin:at])


_CONVERTERS: dict[int, Callable[[bytes], Any]] = {
    frames.JSON_ITEMS: loads,
    frames.TEXT_ITEMS: bytes.decode,
    frames.BYTES_ITEMS: bytes,
}


def _value(target: Target, flags: int, payload: Payload) -> Any:
    meta, body = frames.split_meta(payload) if flags & frames.META else ({}, payload)
    content = meta.get("content")
    if isinstance(content, dict) and "packed" in content:
        return unpack(content["packed"], body)
    media_type = str(meta.get("media_type", "application/json")).partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            return loads(body)
        except MalformedBody as error:
            detail = f"its response is no JSON: {error}"
            raise CallError(502, detail, [target.name]) from None
    return str(body, "utf-8", "replace") if media_type.startswith("text/") else bytes(body)


def _error_of(target: Target, status: int, flags: int, payload: Payload) -> CallError:
    meta, body = frames.split_meta(payload) if flags & frames.META else ({}, payload)
    try:
        said = loads(body)
    except MalformedBody:
        said = str(body, "utf-8", "replace")
    said = said if isinstance(said, dict) else {"detail": said}
    headers = {str(name).lower(): value for name, value in meta.get("headers", ())}
    detail = said.get("detail", said)
    # A hook of the callee that failed by a call of its own knows the rest of the path.
    path = said.get("calls") or meta.get("calls") or [target.name]
    return CallError(status, detail, path, headers.get("retry-after"))
