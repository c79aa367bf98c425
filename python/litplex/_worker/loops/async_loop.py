"""The worker's main loop for ``async`` hooks: each request, or batch, is a task."""

import asyncio
import functools
import sys
from collections import deque
from typing import Any

from litplex._api import is_async
from litplex._launched.request_marks import compute
from litplex._worker.hooks import async_hooks as calls
from litplex._worker.hooks import event_loop
from litplex._worker.hooks.hooks import say_retry
from litplex._worker.loops.async_outbox import AsyncOutbox
from litplex._worker.loops.async_streams import AsyncStreams
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


class AsyncLoop:
    """Serves one data connection until it ends."""

    def __init__(self, sock, reader, hooks, register):
        self._sock = sock
        self._reader = reader
        self._hooks = hooks
        self._register = register
        register.notify = self._notify
        self._loop = event_loop.get()
        self._outbox = AsyncOutbox(sock, self._loop, self._stop)
        self._streams = AsyncStreams(hooks, self._outbox, register)
        self._batch = []
        # What has come and is not begun, as a function of one argument and that argument.
        self._pending: deque[Any] = deque()
        self._running = 0
        self._is_starting = False
        self._error = None
        self._stopped: Any = None
        self._idle: Any = None
        eager: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
        self._task: Any = functools.partial(asyncio.Task, loop=self._loop, **eager)
        if hooks.max_batch_size > 1:
            self._take, self._work = self._collect, self._answer_batch
        else:
            self._take = self._take_one
            self._work = self._stream if hooks.stream else self._answer

    def run(self):
        """Returns when the server is gone or wants no more, after what had arrived is answered.

        Raises:
            FrameError: what came is not the protocol.
        """
        self._loop.run_until_complete(self._serve())
        if self._error is not None:
            raise self._error

    async def _serve(self):
        self._stopped, self._idle = asyncio.Event(), asyncio.Event()
        self._loop.add_reader(self._sock, self._read)
        await self._stopped.wait()
        self._loop.remove_reader(self._sock)
        if self._error is not None:
            # Nobody reads answers after a broken frame, and no credit comes.
            self._register.abandon()
            return
        while self._running or self._pending:
            self._idle.clear()
            await self._idle.wait()
        while not self._outbox.is_empty():
            await asyncio.sleep(0.001)
        # One that has just been sent is begun in the next turn.
        await asyncio.sleep(0)
        await self._outbox.finish()

    def _stop(self):
        self._stopped.set()

    def _read(self):
        try:
            is_open = self._reader.poll()
            frame = self._reader.next()
            while frame is not None:
                kind, flags, _, id, payload = frame
                if kind != frames.REQUEST:
                    raise frames.misplaced(kind)
                self._take(id, flags, payload)
                frame = self._reader.next()
        except frames.FrameError as error:
            self._error = error
            is_open = False
        except OSError:
            is_open = False
        if is_open is False:
            self._stop()

    def _take_one(self, id, flags, payload):
        work = self._open(id, flags, payload)
        if work is not None:
            self._begin(work)

    def _open(self, id, flags, payload):
        """Returns the item and the request, or None where the request is answered already."""
        try:
            request, context = self._hooks.read(flags, payload)
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001
            self._fail(id, error)
            return None
        return self._register.open(id, context), request

    def _collect(self, id, flags, payload):
        work = self._open(id, flags, payload)
        if work is not None:
            self._batch.append(work)
        if not flags & frames.MORE:
            batch, self._batch = self._batch, []
            if batch:
                self._begin(batch)

    def _begin(self, work):
        if self._running >= self._hooks.concurrency:
            self._pending.append(work)
            return
        self._running += 1
        task = self._task(self._work(work))
        if type(work) is tuple:
            work[0].task = task
            return
        for item, _ in work:
            item.task = task

    def _begin_pending(self):
        self._is_starting = False
        while self._pending and self._running < self._hooks.concurrency:
            self._begin(self._pending.popleft())

    def _finish(self, *items):
        for item in items:
            self._register.close(item)
        self._running -= 1
        if self._pending:
            if not self._is_starting:
                # Not from here: with eager tasks, each would begin the next inside of itself.
                self._is_starting = True
                self._loop.call_soon(self._begin_pending)
        elif not self._running:
            self._idle.set()

    def _notify(self, item):
        """Called from the control thread."""
        try:
            self._loop.call_soon_threadsafe(self._changed, item)
        except RuntimeError:
            return  # The loop is closed: all is answered.

    def _changed(self, item):
        if item.changed is not None:
            item.changed.set()
        peers = item.peers or [item]
        # A task that has not begun sees for itself; cancelling it would leave no one to answer.
        if item.has_begun and all(peer.cancelled for peer in peers):
            task = item.task
            # Once: what a hook does to clean up is not cancelled too.
            for peer in peers:
                peer.task = None
            if task is not None:
                calls.cancelled.add(task)
                task.cancel()

    async def _answer(self, work):
        item, request = work
        try:
            begin(item)
            answer = response(item.id, *await calls.answer(self._hooks, request, item.context))
        except BaseException as error:  # noqa: BLE001  (sys.exit in a hook is its error too)
            answer = response(item.id, *encode_error(meant(error, item)))
        self._outbox.add(answer, hold=True)
        self._finish(item)

    async def _stream(self, work):
        item, request = work
        error = None
        try:
            begin(item)
            await self._streams.answer(item, request)
        except BaseException as raised:  # noqa: BLE001
            error = meant(raised, item)
        self._outbox.add(end(item.id, ending_of(error), item.context), hold=True)
        self._finish(item)

    async def _answer_batch(self, batch):
        items = [item for item, _ in batch]
        for item in items:
            item.has_begun, item.peers = True, items
        wanted = self._wanted(items, await self._decode_all(batch))
        if wanted:
            answer = self._streams.answer_batch if self._hooks.stream else self._compute_batch
            computed = [item for item, _ in wanted]
            compute(computed)
            await answer(computed, [x for _, x in wanted])
        # Nothing may wait behind a batch.
        self._outbox.flush()
        self._finish(*items)

    async def _decode_all(self, batch):
        """Returns the input, or the error, of each item as a pair."""
        if not is_async(self._hooks.api.decode_request):
            return [await self._decode(*work) for work in batch]
        try:
            return await asyncio.gather(*(self._decode(*work) for work in batch))
        except asyncio.CancelledError as error:
            return [(None, error)] * len(batch)

    async def _decode(self, item, request):
        if item.cancelled:
            return None, Cancelled()
        compute((item,))
        try:
            begin_stage(item.context)
            x = await calls.settle(self._hooks.decode(request, item.context))
            end_stage(item.context)
            return x, None
        except BaseException as error:  # noqa: BLE001  (it fails alone)
            return None, error

    def _wanted(self, items, decoded):
        """Returns the items to compute with their inputs; answers the others."""
        wanted = []
        for item, (x, error) in zip(items, decoded):
            compute((item,))
            if item.cancelled:
                self._fail(item.id, Cancelled())
            elif error is not None:
                self._fail(item.id, error)
            else:
                wanted.append((item, x))
        return wanted

    async def _compute_batch(self, items, inputs):
        contexts, error = [item.context for item in items], None
        try:
            answers = await calls.answer_batch(self._hooks, inputs, contexts)
        except BaseException as raised:  # noqa: BLE001
            error = meant(raised, *items)
        if error is not None:
            await self._fail_batch(error, items, inputs)
            return
        for item, answer in zip(items, answers):
            self._outbox.put(response_or_error(item.id, answer))

    async def _fail_batch(self, error, items, inputs):
        said: set[str] = set()
        failed = encode_error(error, said)
        if isinstance(error, Cancelled) or not self._hooks.may_retry(error, len(items)):
            for item in items:
                self._outbox.put(response(item.id, *failed))
            return
        say_retry(error, len(items))
        for item, x in zip(items, inputs):
            self._outbox.put(response_or_error(item.id, await self._retry(item, x, said)))
            self._outbox.flush()

    async def _retry(self, item, x, said):
        try:
            if item.cancelled:
                raise Cancelled
            compute((item,))
            return (await calls.answer_batch(self._hooks, [x], [item.context]))[0]
        except BaseException as error:  # noqa: BLE001
            return encode_error(meant(error, item), said)

    def _fail(self, id, error):
        """Answers an item that is not computed."""
        if self._hooks.stream:
            self._outbox.add(end(id, ending_of(error)), hold=True)
        else:
            self._outbox.add(response(id, *encode_error(error)), hold=True)


def begin(item):
    """Marks an item as begun; raises Cancelled where nobody waits for it."""
    item.has_begun = True
    compute((item,))
    begin_stage(item.context)
    if item.cancelled:
        raise Cancelled


def meant(error, *items):
    """Returns the error that is meant by one: Cancelled, where its task was cancelled for that."""
    was_cancelled = isinstance(error, asyncio.CancelledError)
    return Cancelled() if was_cancelled and all(item.cancelled for item in items) else error
