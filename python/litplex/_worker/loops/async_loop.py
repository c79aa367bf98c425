"""The worker's main loop for ``async`` hooks: each request, or batch, is a task."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from litplex._api import is_async
from litplex._launched.request_marks import set_current_request
from litplex._worker import current
from litplex._worker.hooks import async_hooks as calls
from litplex._worker.hooks import event_loop
from litplex._worker.loops.async_outbox import AsyncOutbox
from litplex._worker.loops.async_streams import AsyncStreams
from litplex._worker.loops.steps import (
    Batch,
    ConnectionLoop,
    Single,
    Work,
    arrived_requests,
    batch_failures,
    begin,
    check_wanted,
    failure,
    responses,
    set_current_items,
)
from litplex._worker.wire import frames
from litplex._worker.wire.encode import (
    Cancelled,
    encode_error,
    end,
    ending_of,
    response,
    response_or_error,
)
from litplex._worker.wire.stages import begin_stage, end_stage

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Sequence

    from litplex._worker.control.registry import Item, Registry
    from litplex._worker.hooks.hooks import Hooks
    from litplex._worker.live.patches import Patches
    from litplex._worker.wire.frames import Payload


# The time between two looks of a loop that is held for a change of the code.
_LOOK_SECONDS = 0.002


class AsyncLoop(ConnectionLoop):
    """The loop of ``async`` hooks: each request, or batch, is a task."""

    def __init__(
        self, sock: socket.socket, reader: frames.FrameReader, hooks: Hooks, registry: Registry
    ) -> None:
        super().__init__(sock, reader, hooks, registry)
        registry.notify = self._notify
        # Each task computes its own.
        current.is_shared = False
        self._loop = event_loop.get()
        self._outbox = AsyncOutbox(sock, self._loop, self._stop)
        self._streams = AsyncStreams(hooks, self._outbox, registry)
        self._batch = Batch()
        # Work that has arrived and is not begun.
        self._pending: deque[Work] = deque()
        self._running = 0
        # The most that run at the same time: none while a change of the code is made.
        self._most = hooks.concurrency
        self._patching: Any = None
        self._is_starting = False
        self._work: Callable[[Any], Coroutine[Any, Any, None]]
        self._error: frames.FrameError | None = None
        self._stopped: Any = None
        self._idle: Any = None
        eager: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
        self._task: Any = functools.partial(asyncio.Task, loop=self._loop, **eager)
        if hooks.max_batch_size > 1:
            self._take, self._work = self._collect, self._answer_batch
        else:
            self._take = self._take_one
            self._work = self._stream if hooks.stream else self._answer

    def run(self) -> None:
        """Returns when the server is gone or wants no more, after what had arrived is answered.

        Raises:
            FrameError: the received bytes are not frames.
        """
        self._loop.run_until_complete(self._serve())
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        self._outbox.end()

    async def _serve(self) -> None:
        self._stopped, self._idle = asyncio.Event(), asyncio.Event()
        self._loop.add_reader(self._sock, self._read)
        await self._stopped.wait()
        self._loop.remove_reader(self._sock)
        if self._error is not None:
            # After a broken frame the server reads no response and sends no credit.
            self._registry.abandon()
            return
        while self._running or self._pending:
            self._idle.clear()
            await self._idle.wait()
        while not self._outbox.is_empty():
            await asyncio.sleep(0.001)
        # One that has just been sent is begun in the next turn.
        await asyncio.sleep(0)
        await self._outbox.finish()

    def _stop(self) -> None:
        self._stopped.set()

    def _read(self) -> None:
        try:
            is_open = self._reader.poll()
            for request in arrived_requests(self._reader, self._take_other):
                self._take(*request)
        except frames.FrameError as error:
            self._error = error
            is_open = False
        except OSError:
            is_open = False
        if is_open is False:
            self._stop()

    def _take_one(self, id: int, flags: int, payload: Payload) -> None:
        single = self._open(id, flags, payload)
        if single is not None:
            self._begin(single)

    def _open(self, id: int, flags: int, payload: Payload) -> Any:
        """Returns the request, or None if it is answered already."""
        try:
            request, context = self._hooks.read(flags, payload)
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001
            self._fail(id, error)
            return None
        finally:
            if flags & frames.NAMED:
                # Its task gets the name when it begins.
                set_current_request("")
        return Single(self._registry.open(id, context), request)

    def _collect(self, id: int, flags: int, payload: Payload) -> None:
        single = self._open(id, flags, payload)
        if single is not None:
            self._batch.members.append(single)
        if not flags & frames.MORE:
            batch, self._batch = self._batch, Batch()
            if batch.members:
                self._begin(batch)

    def _begin(self, work: Work) -> None:
        if self._running >= self._most:
            self._pending.append(work)
            return
        self._running += 1
        work.set_task(self._task(self._work(work)))

    def _begin_pending(self) -> None:
        self._is_starting = False
        while self._pending and self._running < self._most:
            self._begin(self._pending.popleft())

    def _hold(self, patches: Patches, id: int) -> bool:
        # What arrives is kept, and not begun.
        self._most = 0
        self._patching = self._loop.create_task(self._patch(patches, id))
        return False

    async def _patch(self, patches: Patches, id: int) -> None:
        while self._running and patches.is_held():
            await asyncio.sleep(_LOOK_SECONDS)
        if patches.is_held():
            patches.stopped(id)
            while patches.is_waited_for():
                await asyncio.sleep(_LOOK_SECONDS)
            patches.finish(0)
        self._most = self._hooks.concurrency
        self._begin_pending()

    def _finish(self, *items: Item) -> None:
        for item in items:
            self._registry.close(item)
        self._running -= 1
        if self._pending:
            if not self._is_starting:
                # Not from here: with eager tasks, each would begin the next inside of itself.
                self._is_starting = True
                self._loop.call_soon(self._begin_pending)
        elif not self._running:
            self._idle.set()

    def _notify(self, item: Item) -> None:
        """Called from the control thread."""
        try:
            self._loop.call_soon_threadsafe(self._changed, item)
        except RuntimeError:
            return  # The loop is closed: all is answered.

    def _changed(self, item: Item) -> None:
        if item.changed is not None:
            item.changed.set()
        peers = item.peers or [item]
        # A task that has not begun checks for itself; a cancelled one could not answer.
        if item.has_begun and all(peer.cancelled for peer in peers):
            task = item.task
            # Once: the cleanup of a hook must not be cancelled.
            for peer in peers:
                peer.task = None
            if task is not None:
                calls.cancelled.add(task)
                task.cancel()

    async def _answer(self, single: Single) -> None:
        item = single.item
        try:
            begin(item)
            answer = await calls.answer(self._hooks, single.value, item.context)
            frame = response(item.id, *answer)
        except BaseException as error:  # noqa: BLE001  (sys.exit in a hook is its error too)
            frame = response(item.id, *encode_error(resolved_error(error, item)))
        self._outbox.add(frame, hold=True)
        self._finish(item)

    async def _stream(self, single: Single) -> None:
        item = single.item
        error: BaseException | None = None
        try:
            begin(item)
            await self._streams.answer(item, single.value)
        except BaseException as raised:  # noqa: BLE001
            error = resolved_error(raised, item)
        self._outbox.add(end(item.id, ending_of(error), item.context), hold=True)
        self._finish(item)

    async def _answer_batch(self, batch: Batch) -> None:
        items = batch.items
        for item in items:
            item.has_begun, item.peers = True, items
        wanted = self._wanted(items, await self._decode_all(batch))
        if wanted.members:
            answer = self._streams.answer_batch if self._hooks.stream else self._compute_batch
            set_current_items(wanted.items)
            await answer(wanted.items, wanted.values)
        # No response may wait behind a batch.
        self._outbox.flush()
        self._finish(*items)

    async def _decode_all(self, batch: Batch) -> Any:
        """Returns the input, or the error, of each item as a pair."""
        if not is_async(self._hooks.api.decode_request):
            return [await self._decode(single) for single in batch.members]
        try:
            return await asyncio.gather(*map(self._decode, batch.members))
        except asyncio.CancelledError as error:
            return [(None, error)] * len(batch.members)

    async def _decode(self, single: Single) -> Any:
        item = single.item
        try:
            check_wanted(item)
            set_current_items((item,))
            begin_stage(item.context)
            x = await calls.settle(self._hooks.decode(single.value, item.context))
            end_stage(item.context)
            return x, None
        except BaseException as error:  # noqa: BLE001  (it fails alone)
            return None, error

    def _wanted(self, items: Sequence[Item], decoded: Any) -> Any:
        """Returns the items to compute with their inputs; answers the others."""
        wanted = Batch()
        for item, (x, error) in zip(items, decoded):
            set_current_items((item,))
            if item.cancelled:
                self._fail(item.id, Cancelled())
            elif error is not None:
                self._fail(item.id, error)
            else:
                wanted.members.append(Single(item, x))
        return wanted

    async def _compute_batch(self, items: Sequence[Item], inputs: list[Any]) -> None:
        contexts = [item.context for item in items]
        error: BaseException | None = None
        try:
            answers = await calls.answer_batch(self._hooks, inputs, contexts)
        except BaseException as raised:  # noqa: BLE001
            error = resolved_error(raised, *items)
        if error is not None:
            await self._fail_batch(error, items, inputs)
            return
        for frame in responses(items, answers):
            self._outbox.put(frame)

    async def _fail_batch(
        self, error: BaseException, items: Sequence[Item], inputs: list[Any]
    ) -> None:
        logged: set[str] = set()
        failed = batch_failures(self._hooks, error, items, logged)
        for frame in failed or ():
            self._outbox.put(frame)
        if failed is not None:
            return
        for item, x in zip(items, inputs):
            self._outbox.put(response_or_error(item.id, await self._retry(item, x, logged)))
            self._outbox.flush()

    async def _retry(self, item: Item, x: Any, logged: set[str]) -> Any:
        try:
            check_wanted(item)
            set_current_items((item,))
            return (await calls.answer_batch(self._hooks, [x], [item.context]))[0]
        except BaseException as error:  # noqa: BLE001
            return encode_error(resolved_error(error, item), logged)

    def _fail(self, id: int, error: BaseException) -> None:
        """Answers an item that is not computed."""
        self._outbox.add(failure(id, error, self._hooks.stream), hold=True)


def resolved_error(error: BaseException, *items: Item) -> Any:
    """Returns Cancelled for the cancellation of a task whose callers have all left, and every other
    error as it is."""
    was_cancelled = isinstance(error, asyncio.CancelledError)
    return Cancelled() if was_cancelled and all(item.cancelled for item in items) else error
