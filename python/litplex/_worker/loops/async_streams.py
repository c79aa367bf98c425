"""Streams of ``async`` hooks: many at a time, each a task that waits for its own credit."""

import asyncio
import contextlib

from litplex._worker.hooks import async_hooks as calls
from litplex._worker.hooks.hooks import as_list
from litplex._worker.loops.batch_streams import Lanes
from litplex._worker.wire import frames
from litplex._worker.wire.encode import encode_item

_LENGTH = frames.LENGTH.size
# A generator that never waits for anything lets others run after so many items.
_ITEMS_IN_A_ROW = 64


class AsyncStreams:
    """Computes streams on the event loop."""

    def __init__(self, hooks, outbox, register):
        self._hooks = hooks
        self._outbox = outbox
        self._register = register

    async def answer(self, item, request):
        """Computes one stream and sends its items."""
        outputs, source = await calls.outputs(self._hooks, request, item.context)
        try:
            await self._send(item, outputs)
        finally:
            await calls.close(outputs, source)

    async def _send(self, item, outputs):
        add, id, sent = self._outbox.add, item.id, 0
        async for output in outputs:
            kind, data = encode_item(output)
            if item.used >= item.granted:
                await self._wait([item], lambda: item.cancelled or item.used < item.granted)
            if item.cancelled or item.used >= item.granted:
                return
            item.used += len(data) + _LENGTH
            # The first goes out at once and alone: somebody waits for it.
            add((id, kind, data), hold=sent > 0)
            sent += 1
            if sent % _ITEMS_IN_A_ROW == 0:
                await asyncio.sleep(0)

    async def answer_batch(self, items, inputs):
        """Computes the streams of a batch and sends them to their ends; it never raises."""
        lanes, error = Lanes(items, self._outbox), None
        try:
            contexts = [item.context for item in items]
            steps, source = await calls.steps(self._hooks, inputs, contexts)
            try:
                await self._follow(lanes, items, steps)
            finally:
                await calls.close(steps, source)
        except BaseException as raised:  # noqa: BLE001
            error = None if all(item.cancelled for item in items) else raised
        # What is left to do ends by itself when all are cancelled, and says so to the server.
        for item in items:
            item.task = None
        lanes.finish(error)
        # Cancelled while it waits here, it waits no more: what is left is not sent.
        with contextlib.suppress(asyncio.CancelledError):
            while not lanes.is_sent() and await self._release(lanes, items):
                continue
        lanes.release()

    async def _follow(self, lanes, items, steps):
        hooks = self._hooks
        encode = None if hooks.encodes_stream else hooks.encode
        async for outputs in steps:
            outputs = as_list(outputs, len(items))
            for at, item in lanes.open():
                lanes.push(at, await calls.encoded(encode, outputs[at], item.context))
            lanes.release()
            while not lanes.has_room():
                if not await self._release(lanes, items, lanes.patience()):
                    if self._register.ended:
                        return
                    lanes.drop_full()
            if not lanes.open():
                return
            await asyncio.sleep(0)

    async def _release(self, lanes, items, timeout=None):
        """Waits for credit and sends what it is for; returns whether any came in time."""
        has_come = await self._wait(items, lanes.can_release, timeout)
        lanes.release()
        return has_come

    async def _wait(self, items, is_enough, timeout=None):
        """Waits until the predicate holds or no credit will come; returns whether it holds."""
        changed = asyncio.Event()
        for item in items:
            item.changed = changed
        while not (is_enough() or self._register.ended):
            changed.clear()
            try:
                await asyncio.wait_for(changed.wait(), timeout)
            except asyncio.TimeoutError:
                break
        return is_enough()
