"""Items of work in progress, which the control thread and a loop share."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from litplex._http import Context

# Notes about items that are not being worked at: of requests that have not been read yet, and of
# those that have been answered, which stay unused. A window is far smaller.
_NOTES_AT_MOST = 4096


class Item:
    """One item of work while it is worked at.

    Attributes:
        id: Its id.
        context: Its :class:`~litplex.Context`, or None.
        cancelled: Whether no caller waits for it any more.
        granted: The bytes of chunks that its stream may send, in all.
        used: The bytes that it has sent or is about to send.
        task: The task that computes it, where hooks are ``async``.
        has_begun: Whether the task has begun.
        peers: The items that the task computes, where they are several.
        changed: The event that the task waits for when it is out of credit.
    """

    # Of the class until they are set: there is one item for each request.
    cancelled = False
    used = 0
    task: Any = None
    has_begun = False
    peers: Any = None
    changed: Any = None

    def __init__(self, id: int, context: Context | None, granted: int) -> None:
        self.id = id
        self.context = context
        self.granted = granted

    def cancel(self) -> None:
        """Marks it, and its context, as cancelled."""
        self.cancelled = True
        if self.context is not None:
            self.context.cancelled = True


class Registry:
    """The items that are worked at, by id, and the cancelled ones that are not.

    Args:
        credit: Bytes that a stream may send before it is granted more.
    """

    def __init__(self, credit: int) -> None:
        self._credit = credit
        #: Ids of items that no caller waits for.
        self.cancelled: set[int] = set()
        self._notes: deque[int] = deque()
        self._items: dict[int, Item] = {}
        self._changed = threading.Condition()
        #: Whether the server is gone, so that no credit will come.
        self.ended = False
        #: Called from the control thread with each item that has changed.
        self.notify: Callable[[Item], None] = self._wake

    def open(self, id: int, context: Context | None = None) -> Item:
        """Returns a new item with this id, which is in computation until it is closed."""
        item = self._items[id] = Item(id, context, self._credit)
        # In this order: a concurrent cancel is seen here, or finds the item.
        if id in self.cancelled:
            item.cancel()
        return item

    def close(self, item: Item) -> None:
        """Forgets an item that is answered."""
        self._items.pop(item.id, None)
        if self.cancelled:
            self.cancelled.discard(item.id)

    def wait(self, is_enough: Callable[[], bool], timeout: float | None = None) -> bool:
        """Blocks until the predicate holds or no credit will come; returns whether it holds."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or is_enough(), timeout)
        return is_enough()

    def has_cancelled(self, ids: Iterable[int]) -> bool:
        """Returns whether one of these items was cancelled."""
        return not self.cancelled.isdisjoint(ids)

    def cancel(self, id: int) -> None:
        """Notes, from the control thread, that no caller waits for this item."""
        self.cancelled.add(id)
        self._notes.append(id)
        if len(self._notes) > _NOTES_AT_MOST:
            self.cancelled.discard(self._notes.popleft())
        item = self._items.get(id)
        if item is not None:
            item.cancel()
            self.notify(item)

    def grant(self, id: int, count: int) -> None:
        """Notes, from the control thread, that a stream may send this many bytes more."""
        item = self._items.get(id)
        if item is not None:
            item.granted += count
            self.notify(item)

    def abandon(self) -> None:
        """Cancels every item: no caller is left."""
        for item in list(self._items.values()):
            item.cancel()

    def end(self) -> None:
        """Notes, from the control thread, that nothing more will come."""
        self.ended = True
        self._wake()
        for item in list(self._items.values()):
            self.notify(item)

    def _wake(self, _: Any = None) -> None:
        with self._changed:
            self._changed.notify_all()
