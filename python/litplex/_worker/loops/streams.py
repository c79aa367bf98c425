"""Streams of plain hooks: one at a time, or a batch side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litplex._worker.hooks.outputs import as_list, close, encoded
from litplex._worker.loops.batch_streams import BatchStreams
from litplex._worker.loops.steps import check_wanted
from litplex._worker.wire import frames
from litplex._worker.wire.encode import encode_item, end, ending_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litplex._http import Context
    from litplex._worker.control.registry import Item, Registry
    from litplex._worker.hooks.hooks import Hooks
    from litplex._worker.loops.outbox import Outbox

_LENGTH = frames.LENGTH.size


class Streams:
    """Computes streams on the thread that calls, which waits where there is no credit."""

    def __init__(self, hooks: Hooks, outbox: Outbox, registry: Registry) -> None:
        self._hooks = hooks
        self._outbox = outbox
        self._registry = registry

    def answer(self, id: int, request: Any, context: Context | None) -> None:
        """Computes one stream and sends it to its end."""
        item = self._registry.open(id, context)
        error: BaseException | None = None
        try:
            check_wanted(item)
            self._send(item, *self._hooks.outputs(request, context))
        except BaseException as raised:  # noqa: BLE001
            error = raised
        finally:
            self._registry.close(item)
        self._outbox.add(end(id, ending_of(error), context), hold=False)

    def _send(self, item: Item, outputs: Any, source: Any) -> None:
        add, id, used, granted = self._outbox.add, item.id, 0, item.granted
        # The first goes out at once and alone: the client waits for it.
        hold = False
        try:
            for output in outputs:
                kind, data = encode_item(output)
                if item.cancelled:
                    return
                if used >= granted:
                    granted = self._wait_for_credit(item, used)
                    if used >= granted:
                        return
                used += len(data) + _LENGTH
                add((id, kind, data), hold=hold)
                hold = True
        finally:
            close(outputs, source)

    def _wait_for_credit(self, item: Item, used: Any) -> Any:
        if item.granted <= used:
            self._outbox.flush()
            self._registry.wait(lambda: item.cancelled or item.granted > used)
            self._outbox.resume()
        return 0 if item.cancelled else item.granted

    def answer_batch(self, items: Sequence[Item], inputs: list[Any]) -> None:
        """Computes the streams of a batch and sends them to their ends."""
        streams = BatchStreams(items, self._outbox)
        error: BaseException | None = None
        try:
            contexts = [item.context for item in items]
            self._follow(streams, contexts, *self._hooks.steps(inputs, contexts))
        except BaseException as raised:  # noqa: BLE001
            error = raised
        streams.finish(error)
        while not streams.is_sent() and self._release(streams):
            continue
        self._outbox.flush()

    def _follow(
        self, streams: BatchStreams, contexts: Sequence[Context | None], steps: Any, source: Any
    ) -> None:
        hooks = self._hooks
        encode = None if hooks.encodes_stream else hooks.encode
        try:
            for outputs in steps:
                outputs = as_list(outputs, len(contexts))
                for at, item in streams.open():
                    streams.push(at, encoded(encode, outputs[at], item.context))
                streams.release()
                while not streams.has_room():
                    if not self._release(streams, streams.patience()):
                        if self._registry.ended:
                            return
                        streams.drop_full()
                if not streams.open():
                    return
        finally:
            close(steps, source)

    def _release(self, streams: BatchStreams, timeout: float | None = None) -> bool:
        """Waits for credit and sends what it is for; returns whether any came in time."""
        self._outbox.flush()
        has_come = self._registry.wait(streams.can_release, timeout)
        self._outbox.resume()
        streams.release()
        return has_come
