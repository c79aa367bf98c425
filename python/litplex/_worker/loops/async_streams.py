"""Streams of ``async`` hooks: many at a time, each a task that waits for its own credit."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from litplex._worker.hooks import async_hooks as calls
from litplex._worker.hooks.outputs import aclose, as_list
from litplex._worker.loops.batch_streams import BatchStreams
from litplex._worker.wire import frames
from litplex._worker.wire.encode import encode_item

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from litplex._worker.control.registry import Item, Registry
    from litplex._worker.hooks.hooks import Hooks
    from litplex._worker.loops.outbox import Outbox

_LENGTH = frames.LENGTH.size
# The number of items after which a generator that never waits lets others run.
_ITEMS_IN_A_ROW = 64


class AsyncStreams:
    """Computes streams on the event loop."""

    def __init__(self, hooks: Hooks, outbox: Outbox, registry: Registry) -> None:
        self._hooks = hooks
        self._outbox = outbox
        self._registry = registry

    async def answer(self, item: Item, request: Any) -> None:
        """Computes one stream and sends its items."""
        outputs, source = await calls.outputs(self._hooks, request, item.context)
        try:
            await self._send(item, outputs)
        finally:
            await aclose(outputs, source)

    async def _send(self, item: Item, outputs: Any) -> None:
        add, id, sent = self._outbox.add, item.id, 0
        async for output in outputs:
            kind, data = encode_item(output)
            if item.used >= item.granted:
                await self._wait([item], lambda: item.cancelled or item.used < item.granted)
            if item.cancelled or item.used >= item.granted:
                return
            item.used += len(data) + _LENGTH
            # The first goes out at once and alone: the client waits for it.
            add((id, kind, data), hold=sent > 0)
            sent += 1
            if sent % _ITEMS_IN_A_ROW == 0:
                await asyncio.sleep(0)

    async def answer_batch(self, items: Sequence[Item], inputs: list[Any]) -> None:
        """Computes the streams of a batch and sends them to their ends; it never raises."""
        streams = BatchStreams(items, self._outbox)
        error: BaseException | None = None
        try:
            contexts = [item.context for item in items]
            steps, source = await calls.steps(self._hooks, inputs, contexts)
            try:
                await self._follow(streams, items, steps)
            finally:
                await aclose(steps, source)
        except BaseException as raised:  # noqa: BLE001
            error = None if all(item.cancelled for item in items) else raised
        # The rest ends by itself when all are cancelled, and reports that to the server.
        for item in items:
            item.task = None
        streams.finish(error)
        # A cancellation ends the wait: the rest is not sent.
        with contextlib.suppress(asyncio.CancelledError):
            while not streams.is_sent() and await self._release(streams, items):
                continue
        streams.release()

    async def _follow(self, streams: BatchStreams, items: Sequence[Item], steps: Any) -> None:
        hooks = self._hooks
        encode = None if hooks.encodes_stream else hooks.encode
        async for outputs in steps:
            outputs = as_list(outputs, len(items))
            for at, item in streams.open():
                streams.push(at, await calls.encoded(encode, outputs[at], item.context))
            streams.release()
            while not streams.has_room():
                if not await self._release(streams, items, streams.patience()):
                    if self._registry.ended:
                        return
                    streams.drop_full()
            if not streams.open():
                return
            await asyncio.sleep(0)

    async def _release(
        self, streams: BatchStreams, items: Sequence[Item], timeout: float | None = None
    ) -> bool:
        """Waits for credit and sends what it is for; returns whether any came in time."""
        has_come = await self._wait(items, streams.can_release, timeout)
        streams.release()
        return has_come

    async def _wait(
        self, items: Sequence[Item], is_enough: Callable[[], bool], timeout: float | None = None
    ) -> bool:
        """Waits until the predicate holds or no credit will come; returns whether it holds."""
        changed = asyncio.Event()
        for item in items:
            item.changed = changed
        while not (is_enough() or self._registry.ended):
            changed.clear()
            try:
                await asyncio.wait_for(changed.wait(), timeout)
            except asyncio.TimeoutError:
                break
        return is_enough()
