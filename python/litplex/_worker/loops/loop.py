"""The worker's main loop for plain hooks: requests in, hooks, answers out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litplex._launched.request_marks import set_current_request
from litplex._worker import current
from litplex._worker.loops.outbox import Outbox
from litplex._worker.loops.read_ahead import ReadAhead
from litplex._worker.loops.steps import (
    Batch,
    ConnectionLoop,
    Single,
    batch_failures,
    check_wanted,
    failure,
    responses,
    set_current_items,
)
from litplex._worker.loops.streams import Streams
from litplex._worker.wire import frames
from litplex._worker.wire.encode import (
    Cancelled,
    encode_error,
    end,
    ending_of,
    response,
    response_or_error,
)
from litplex._worker.wire.stages import end_stage

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from litplex._http import Context
    from litplex._worker.control.registry import Item, Registry
    from litplex._worker.hooks.hooks import Hooks
    from litplex._worker.live.patches import Patches
    from litplex._worker.wire.frames import Payload


class Loop(ConnectionLoop):
    """The loop of plain hooks: one request, or batch, after another."""

    def __init__(
        self, sock: socket.socket, reader: frames.FrameReader, hooks: Hooks, registry: Registry
    ) -> None:
        super().__init__(sock, reader, hooks, registry)
        self._cancelled = registry.cancelled
        self._outbox = Outbox(sock)
        self._streams = Streams(hooks, self._outbox, registry)
        self._batch = Batch()
        self._ahead: ReadAhead | None = None
        self._next, self._read = reader.next, hooks.read
        if hooks.max_batch_size > 1:
            self._take = self._collect
            if hooks.reads_json:
                self._ahead = ahead = ReadAhead(sock, reader, hooks.read)
                self._next, self._read = ahead.next, ahead.read
                hooks.compute = ahead.around(hooks.compute)
        elif hooks.stream:
            self._take = self._stream
        else:
            self._take = self._answer

    def run(self) -> None:
        """Returns when the server is gone or wants no more, after what had arrived is answered.

        Raises:
            FrameError: the received bytes are not frames.
            ConnectionError: the server is gone and does not read answers either.
        """
        reader, outbox, take, next_frame = self._reader, self._outbox, self._take, self._next
        while True:
            frame = next_frame()
            if frame is None:
                outbox.flush()
                current.shared = None
                if not reader.receive():
                    return
                outbox.resume()
                continue
            kind, flags, _, id, payload = frame
            if kind != frames.REQUEST:
                self._take_other(kind, id)
                continue
            current.shared = id
            take(id, flags, payload)

    def end(self) -> None:
        self._outbox.end()
        if self._ahead is not None:
            self._ahead.end()

    def _hold(self, patches: Patches, id: int) -> bool:
        self._outbox.flush()
        current.shared = None
        patches.stopped(id)
        patches.finish()
        return False

    def _answer(self, id: int, flags: int, payload: Payload) -> None:
        try:
            if self._cancelled and id in self._cancelled:
                self._cancelled.discard(id)
                raise Cancelled
            request, context = self._hooks.read(flags, payload)
            if context is None:
                answer = response(id, *self._hooks.answer(request, None))
            else:
                answer = self._answer_watched(id, request, context)
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001  (sys.exit in a hook is its error too)
            answer = response(id, *encode_error(error))
        # What its hooks left running computes no request any longer.
        current.shared = None
        if flags:
            set_current_request("")
        self._outbox.add(answer, hold=self._reader.has_more())

    def _answer_watched(self, id: int, request: Any, context: Context | None) -> Any:
        item = self._registry.open(id, context)
        try:
            check_wanted(item)
            return response(id, *self._hooks.answer(request, context))
        finally:
            self._registry.close(item)

    def _stream(self, id: int, flags: int, payload: Payload) -> None:
        try:
            request, context = self._hooks.read(flags, payload)
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001
            self._outbox.add(end(id, ending_of(error)), hold=False)
        else:
            self._streams.answer(id, request, context)
        if flags:
            set_current_request("")

    def _collect(self, id: int, flags: int, payload: Payload) -> None:
        """Decodes one item of a batch, and runs the batch if it is the last."""
        item = None
        try:
            if id in self._cancelled:
                self._cancelled.discard(id)
                raise Cancelled
            request, context = self._read(flags, payload)
            item = self._registry.open(id, context)
            self._batch.members.append(Single(item, self._hooks.decode(request, context)))
            end_stage(context)
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001  (it fails alone)
            if item is not None:
                self._registry.close(item)
            self._fail(id, error)
        if flags & frames.NAMED:
            set_current_request("")
        if not flags & frames.MORE:
            batch, self._batch = self._batch, Batch()
            # No response may wait behind a batch.
            self._outbox.flush()
            self._run_batch(batch)
            self._outbox.flush()

    def _run_batch(self, batch: Batch) -> None:
        wanted = batch
        # Each item is checked once: the control thread may cancel it at any time.
        cancelled = [single for single in batch.members if single.item.cancelled]
        if cancelled:
            wanted = Batch([single for single in batch.members if single not in cancelled])
        for single in cancelled:
            self._fail(single.item.id, Cancelled())
        if wanted.members:
            items = wanted.items
            set_current_items(items)
            answer = self._streams.answer_batch if self._hooks.stream else self._answer_batch
            answer(items, wanted.values)
            set_current_request("")
        for single in batch.members:
            self._registry.close(single.item)

    def _fail(self, id: int, error: BaseException) -> None:
        self._outbox.put(failure(id, error, self._hooks.stream))

    def _answer_batch(self, items: Sequence[Item], inputs: list[Any]) -> None:
        error: BaseException | None = None
        try:
            answers = self._hooks.answer_batch(inputs, [item.context for item in items])
        except BaseException as raised:  # noqa: BLE001
            error = raised
        if error is not None:
            # Outside the `except` block: inside, it would be in the traceback of each later error.
            self._fail_batch(error, items, inputs)
            return
        for frame in responses(items, answers):
            self._outbox.put(frame)

    def _fail_batch(self, error: BaseException, items: Sequence[Item], inputs: list[Any]) -> None:
        logged: set[str] = set()
        failed = batch_failures(self._hooks, error, items, logged)
        for frame in failed or ():
            self._outbox.put(frame)
        if failed is not None:
            return
        for item, x in zip(items, inputs):
            self._outbox.put(response_or_error(item.id, self._retry(item, x, logged)))
            self._outbox.flush()

    def _retry(self, item: Item, x: Any, logged: set[str]) -> Any:
        try:
            check_wanted(item)
            set_current_items((item,))
            return self._hooks.answer_batch([x], [item.context])[0]
        except BaseException as error:  # noqa: BLE001
            return encode_error(error, logged)
