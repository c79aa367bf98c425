"""Steps that the loops share, whether hooks are plain, ``async`` or batched continuously.

The fast path of the plain loop, one request after the other, is written out there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Union

from litplex._launched.request_marks import set_current_requests
from litplex._launched.tracebacks import summary_of
from litplex._worker import current
from litplex._worker.wire import frames
from litplex._worker.wire.encode import (
    Answer,
    Cancelled,
    encode_error,
    end,
    ending_of,
    response,
    response_or_error,
)
from litplex._worker.wire.stages import begin_stage

if TYPE_CHECKING:
    import asyncio
    import socket

    from litplex._worker.control.registry import Item, Registry
    from litplex._worker.hooks.hooks import Hooks
    from litplex._worker.live.patches import Patches


class ConnectionLoop:
    """A main loop of the worker, which serves one data connection until that ends.

    Args:
        sock: The data connection.
        reader: The reader of its frames.
        hooks: The hooks of the model.
        registry: The requests that the worker holds.

    Attributes:
        patches: The changes of the model's code; None if the server changes no code.
    """

    patches: Patches | None = None

    def __init__(
        self, sock: socket.socket, reader: frames.FrameReader, hooks: Hooks, registry: Registry
    ) -> None:
        self._sock = sock
        self._reader = reader
        self._hooks = hooks
        self._registry = registry

    def end(self) -> None:
        """Ends what the loop has started beside itself, once it has run. The process goes on."""

    def _take_other(self, kind: int, id: int) -> bool:
        """Takes a frame of another kind than a request: one that holds the loop for a change of the
        code. Returns whether the requests behind it must not be taken yet.

        Raises:
            FrameError: the frame is another one.
        """
        if kind != frames.PATCH or self.patches is None:
            raise frames.misplaced(kind)
        # Otherwise the server has given up.
        return self.patches.is_held() and self._hold(self.patches, id)

    def _hold(self, patches: Patches, id: int) -> bool:
        """Stops between requests, and lets the change be made. Returns what :meth:`_take_other`
        does."""
        raise NotImplementedError


class Single:
    """A request that is computed alone.

    Attributes:
        item: Its item.
        value: The request, or the input that ``decode_request`` made of it.
    """

    __slots__ = ("item", "value")

    def __init__(self, item: Item, value: Any) -> None:
        self.item = item
        self.value = value

    def set_task(self, task: asyncio.Task[None]) -> None:
        """Sets the task that computes it."""
        self.item.task = task


class Batch:
    """Requests that are computed together.

    Attributes:
        members: The requests, in the order of their arrival.
    """

    __slots__ = ("members",)

    def __init__(self, members: list[Single] | None = None) -> None:
        self.members = [] if members is None else members

    @property
    def items(self) -> list[Item]:
        return [member.item for member in self.members]

    @property
    def values(self) -> list[Any]:
        return [member.value for member in self.members]

    def set_task(self, task: asyncio.Task[None]) -> None:
        """Sets the task that computes the batch."""
        for member in self.members:
            member.item.task = task


#: The unit of computation of a loop.
Work = Union[Single, Batch]


def arrived_requests(
    reader: frames.FrameReader, take_other: Callable[[int, int], bool]
) -> Iterator[tuple[int, int, memoryview]]:
    """Yields the id, flags and payload of each request that has arrived whole, up to a frame of
    another kind that ends this.

    Args:
        reader: The reader.
        take_other: Takes the kind and id of a frame of another kind; returns whether it is the last
            one for now.

    Raises:
        FrameError: a frame has no place here.
    """
    frame = reader.next()
    while frame is not None:
        kind, flags, _, id, payload = frame
        if kind == frames.REQUEST:
            yield id, flags, payload
        elif take_other(kind, id):
            return
        frame = reader.next()


def set_current_items(items: Sequence[Item]) -> None:
    """Sets the items that the current thread, or task, computes: for its output and its calls."""
    set_current_requests(items)
    current.set_items(items)


def begin(item: Item) -> None:
    """Marks an item as begun; raises Cancelled if no caller waits for it."""
    item.has_begun = True
    set_current_items((item,))
    begin_stage(item.context)
    check_wanted(item)


def check_wanted(item: Item) -> None:
    """Raises Cancelled if no caller waits for the item."""
    if item.cancelled:
        raise Cancelled


def failure(
    id: int, error: BaseException, is_stream: bool, logged: set[str] | None = None
) -> bytes:
    """Returns the frame that fails a request: the end of its stream, or its response."""
    if is_stream:
        return end(id, ending_of(error, logged))
    return response(id, *encode_error(error, logged))


def responses(items: Iterable[Item], answers: Iterable[Answer]) -> list[bytes]:
    """Returns the frames of the responses of a batch."""
    return [response_or_error(item.id, answer) for item, answer in zip(items, answers)]


def batch_failures(
    hooks: Hooks, error: BaseException, items: Sequence[Item], logged: set[str]
) -> list[bytes] | None:
    """Returns the frames that answer a batch which raised; None if its items are computed again,
    one at a time, which is then reported.

    Args:
        hooks: The hooks of the model.
        error: The exception.
        items: The items of the batch.
        logged: Receives the summaries of the errors that the log has.
    """
    failed = encode_error(error, logged)
    if isinstance(error, Cancelled) or not hooks.may_retry(error, len(items)):
        return [response(item.id, *failed) for item in items]
    print(
        f"a batch of {len(items)} raised {summary_of(error)}; its items are computed one at a time",
        file=sys.stderr,
        flush=True,
    )
    return None
