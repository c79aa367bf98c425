"""The streams of one batch, side by side, each with its own credit."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from litplex._api import FINISHED
from litplex._worker.wire import frames
from litplex._worker.wire.encode import encode_item, end, ending_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litplex._worker.control.registry import Item
    from litplex._worker.loops.outbox import Outbox, Piece
    from litplex._worker.wire.encode import Ending

# How long a batch waits for a client that takes nothing before it goes on without it.
STALL_SECONDS = 10.0

_LENGTH = frames.LENGTH.size


class TooSlow(Exception):
    """A client that holds up a batch; it has the shape of an HTTPException."""

    status_code = 408
    detail = f"the client took nothing for {STALL_SECONDS:g} s while others of its batch waited"


class _Stream:
    """One of the streams.

    Attributes:
        is_open: Whether it wants more outputs.
    """

    def __init__(self, item: Item) -> None:
        self.item = item
        self.is_open = True
        self._room = item.granted
        # Items, and at last the end, that wait for credit.
        self._waiting: deque[Any] = deque()
        self._bytes = 0

    def push(self, output: Any) -> None:
        kind, data = encode_item(output)
        self._waiting.append((self.item.id, kind, data))
        self._bytes += len(data) + _LENGTH

    def finish(self, ending: Ending = (0, b"", ())) -> None:
        self.is_open = False
        self._waiting.append(end(self.item.id, ending, self.item.context))

    def drop(self) -> None:
        self._waiting.clear()
        self._bytes = 0

    def release(self, pieces: list[Piece]) -> None:
        """Moves what there is credit for to the pieces; nothing needs credit but items."""
        item, waiting = self.item, self._waiting
        while waiting and not self.waits():
            piece = waiting.popleft()
            if isinstance(piece, tuple):
                size = len(piece[2]) + _LENGTH
                item.used += size
                self._bytes -= size
                if item.cancelled:
                    continue
            pieces.append(piece)

    def waits(self) -> Any:
        """Returns whether its next item waits for credit."""
        item, waiting = self.item, self._waiting
        is_item = bool(waiting) and isinstance(waiting[0], tuple)
        return is_item and item.used >= item.granted and not item.cancelled

    def is_full(self) -> bool:
        """Returns whether the bytes that wait for credit are at their limit."""
        return self._bytes > self._room and self.waits()

    def is_sent(self) -> bool:
        return not self._waiting


class BatchStreams:
    """Gives each stream of a batch its outputs, and keeps those that wait for credit.

    Args:
        items: The items of the batch.
        outbox: Where the pieces go.
    """

    def __init__(self, items: Sequence[Item], outbox: Outbox) -> None:
        self._streams = [_Stream(item) for item in items]
        self._outbox = outbox
        self._is_first = True

    def open(self) -> list[tuple[int, Item]]:
        """Returns the places of the streams that want more outputs, with their items; those
        without a caller are ended."""
        for stream in self._streams:
            if stream.is_open and stream.item.cancelled:
                stream.finish()
        return [(at, stream.item) for at, stream in enumerate(self._streams) if stream.is_open]

    def push(self, at: int, output: Any) -> None:
        """Takes an output of one stream: FINISHED ends it, and so does an exception."""
        stream = self._streams[at]
        if output is FINISHED:
            stream.finish()
            return
        try:
            if isinstance(output, BaseException):
                raise output
            stream.push(output)
        except BaseException as error:  # noqa: BLE001  (one item fails alone)
            stream.finish(ending_of(error))

    def finish(self, error: BaseException | None = None) -> None:
        """Ends the streams that are still open."""
        ending = ending_of(error)
        for stream in self._streams:
            if stream.is_open:
                stream.finish(ending)
        self.release()

    def release(self) -> None:
        """Sends what there is credit for."""
        pieces: list[Any] = []
        for stream in self._streams:
            stream.release(pieces)
        if pieces:
            # The first items go out at once: clients wait for them.
            self._outbox.add_all(pieces, hold=not self._is_first)
            self._is_first = False

    def can_release(self) -> bool:
        """Returns whether credit has come for an item that waited."""
        return any(not (stream.is_sent() or stream.waits()) for stream in self._streams)

    def has_room(self) -> bool:
        """Returns whether the next step may be taken."""
        return not any(stream.is_full() for stream in self._streams)

    def is_sent(self) -> bool:
        """Returns whether no item waits for credit."""
        return all(stream.is_sent() for stream in self._streams)

    def patience(self) -> float | None:
        """Returns the seconds to wait for room; None, without a limit, if no other stream waits."""
        is_holding_up = any(stream.is_open and not stream.is_full() for stream in self._streams)
        return STALL_SECONDS if is_holding_up else None

    def drop_full(self) -> None:
        """Ends the streams whose clients hold up the others."""
        for stream in self._streams:
            if stream.is_full():
                stream.drop()
                stream.finish(ending_of(TooSlow()))
        self.release()
