"""The streams of one batch, side by side."""

from collections import deque
from typing import Any

from litplex._api import FINISHED
from litplex._worker.wire import frames
from litplex._worker.wire.encode import encode_item, end, ending_of

# How long a batch waits for a client that takes nothing before it goes on without it.
STALL_SECONDS = 10.0

_LENGTH = frames.LENGTH.size


class TooSlow(Exception):
    """A client that holds up a batch; it has the shape of an HTTPException."""

    status_code = 408
    detail = f"the client took nothing for {STALL_SECONDS:g} s while others of its batch waited"


class _Lane:
    """One of the streams.

    Attributes:
        is_open: Whether it wants more outputs.
    """

    def __init__(self, item):
        self.item = item
        self.is_open = True
        self._room = item.granted
        # Items, and at last the end, that wait for credit.
        self._waiting: deque[Any] = deque()
        self._bytes = 0

    def push(self, output):
        kind, data = encode_item(output)
        self._waiting.append((self.item.id, kind, data))
        self._bytes += len(data) + _LENGTH

    def finish(self, ending=(0, b"", ())):
        self.is_open = False
        self._waiting.append(end(self.item.id, ending, self.item.context))

    def drop(self):
        self._waiting.clear()
        self._bytes = 0

    def release(self, pieces):
        """Moves what there is credit for to the pieces; nothing needs credit but items."""
        item, waiting = self.item, self._waiting
        while waiting and not self.waits():
            piece = waiting.popleft()
            if type(piece) is tuple:
                size = len(piece[2]) + _LENGTH
                item.used += size
                self._bytes -= size
                if item.cancelled:
                    continue
            pieces.append(piece)

    def waits(self):
        """Tells whether its next item waits for credit."""
        item, waiting = self.item, self._waiting
        is_item = bool(waiting) and type(waiting[0]) is tuple
        return is_item and item.used >= item.granted and not item.cancelled

    def is_full(self):
        """Tells whether as much waits for credit as may."""
        return self._bytes > self._room and self.waits()

    def is_sent(self):
        return not self._waiting


class Lanes:
    """Gives each stream of a batch its outputs, and keeps those that wait for credit.

    Args:
        items: The items of the batch.
        outbox: Where the pieces go.
    """

    def __init__(self, items, outbox):
        self._lanes = [_Lane(item) for item in items]
        self._outbox = outbox
        self._is_first = True

    def open(self):
        """Returns the places of the streams that want more outputs, with their items; those
        that nobody waits for are ended."""
        for lane in self._lanes:
            if lane.is_open and lane.item.cancelled:
                lane.finish()
        return [(at, lane.item) for at, lane in enumerate(self._lanes) if lane.is_open]

    def push(self, at, output):
        """Takes an output of one stream: FINISHED ends it, and so does an exception."""
        lane = self._lanes[at]
        if output is FINISHED:
            lane.finish()
            return
        try:
            if isinstance(output, BaseException):
                raise output
            lane.push(output)
        except BaseException as error:  # noqa: BLE001  (one item fails alone)
            lane.finish(ending_of(error))

    def finish(self, error=None):
        """Ends the streams that are still open."""
        ending = ending_of(error)
        for lane in self._lanes:
            if lane.is_open:
                lane.finish(ending)
        self.release()

    def release(self):
        """Sends what there is credit for."""
        pieces: list[Any] = []
        for lane in self._lanes:
            lane.release(pieces)
        if pieces:
            # The first items go out at once: somebody waits for them.
            self._outbox.add_all(pieces, hold=not self._is_first)
            self._is_first = False

    def can_release(self):
        """Tells whether credit has come for something that waited."""
        return any(not (lane.is_sent() or lane.waits()) for lane in self._lanes)

    def has_room(self):
        """Tells whether the next step may be taken."""
        return not any(lane.is_full() for lane in self._lanes)

    def is_sent(self):
        """Tells whether nothing waits for credit."""
        return all(lane.is_sent() for lane in self._lanes)

    def patience(self):
        """Returns how many seconds to wait for room; None, for ever, if that costs nobody."""
        is_holding_up = any(lane.is_open and not lane.is_full() for lane in self._lanes)
        return STALL_SECONDS if is_holding_up else None

    def drop_full(self):
        """Ends the streams whose clients hold up the others."""
        for lane in self._lanes:
            if lane.is_full():
                lane.drop()
                lane.finish(ending_of(TooSlow()))
        self.release()
