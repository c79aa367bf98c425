"""The worker's main loop for models that requests join and leave between steps."""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from litplex._api import FINISHED, Last
from litplex._launched.request_marks import set_current_request
from litplex._launched.tracebacks import print_of
from litplex._worker.hooks.outputs import as_list
from litplex._worker.loops.outbox import Outbox
from litplex._worker.loops.steps import (
    ConnectionLoop,
    Single,
    arrived_requests,
    begin,
    check_wanted,
    failure,
    set_current_items,
)
from litplex._worker.wire import frames
from litplex._worker.wire.encode import (
    Cancelled,
    encode_item,
    end,
    response_or_error,
)
from litplex._worker.wire.stages import end_stage

if TYPE_CHECKING:
    from litplex._worker.control.registry import Item, Registry
    from litplex._worker.hooks.hooks import Hooks
    from litplex._worker.live.patches import Patches
    from litplex._worker.loops.outbox import Piece
    from litplex._worker.wire.frames import Payload

# The time between two looks of a loop that is held for a change of the code.
_LOOK_MILLISECONDS = 20

_RULE = "step must give one entry for each sequence"


class _Live:
    """An admitted request."""

    def __init__(self, item: Item, sequence: Any) -> None:
        self.item = item
        self.sequence = sequence
        # Kept for the answer where they are not sent as they come.
        self.outputs: list[Any] = []
        self.is_done = False

    def may_send(self) -> bool:
        return self.item.used < self.item.granted


class ContinuousLoop(ConnectionLoop):
    """The loop of a ContinuousAPI: requests join and leave between steps."""

    def __init__(
        self, sock: socket.socket, reader: frames.FrameReader, hooks: Hooks, registry: Registry
    ) -> None:
        super().__init__(sock, reader, hooks, registry)
        self._api = hooks.api
        self._outbox = Outbox(sock)
        self._pieces: list[Piece] = []
        self._has_first = False
        # Requests that wait for a place, with their inputs.
        self._waiting: deque[Any] = deque()
        self._live: list[_Live] = []
        self._is_open = True
        # The change of the code for which no request is read, with its id.
        self._held: tuple[Patches, int] | None = None
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        registry.notify = self._notify

    def run(self) -> None:
        """Returns when the server is gone or wants no more, after what had arrived is answered.

        Raises:
            FrameError: the received bytes are not frames.
            ConnectionError: the server is gone and does not read answers either.
        """
        try:
            while self._is_open or self._live or self._waiting or self._held:
                self._read()
                self._drop_cancelled()
                self._admit()
                self._step()
                self._send()
                if self._held is not None:
                    self._patch(*self._held)
            self._outbox.flush()
        finally:
            for live in list(self._live):
                self._leave(live, "cancelled")

    def end(self) -> None:
        self._outbox.end()
        self._woken.close()
        self._wake.close()

    def _notify(self, _: Item) -> None:
        """Called from the control thread."""
        try:
            self._wake.send(b"\0")
        except BlockingIOError:
            return  # It is awake already.

    def _read(self) -> None:
        """Takes the requests that have come; blocks only where there is nothing else to do."""
        if not self._is_open or self._held is not None:
            got = None
        elif self._live or self._waiting:
            got = self._reader.poll()
        else:
            self._outbox.flush()
            got = self._reader.receive()
            self._outbox.resume()
        if got is False:
            self._is_open = False
        if self._held is None:
            for request in arrived_requests(self._reader, self._take_other):
                self._take(*request)

    def _hold(self, patches: Patches, id: int) -> bool:
        self._held = patches, id
        return True

    def _patch(self, patches: Patches, id: int) -> None:
        """Makes a change of the code once no sequence is left."""
        if patches.is_held():
            if self._live or self._waiting:
                return
            self._outbox.flush()
            patches.stopped(id)
            patches.finish()
        self._held = None
        for request in arrived_requests(self._reader, self._take_other):
            self._take(*request)

    def _take(self, id: int, flags: int, payload: Payload) -> None:
        item = None
        try:
            request, context = self._hooks.read(flags, payload)
            item = self._registry.open(id, context)
            set_current_items((item,))
            check_wanted(item)
            self._waiting.append(Single(item, self._hooks.decode(request, context)))
            end_stage(context)
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001  (sys.exit in a hook is its error too)
            if item is not None:
                self._registry.close(item)
            self._fail(id, error)
        set_current_request("")

    def _drop_cancelled(self) -> None:
        if any(waiting.item.cancelled for waiting in self._waiting):
            waiting, self._waiting = self._waiting, deque()
            for single in waiting:
                if not single.item.cancelled:
                    self._waiting.append(single)
                    continue
                self._fail(single.item.id, Cancelled())
                self._registry.close(single.item)
        for live in self._live:
            if live.item.cancelled:
                self._fail(live.item.id, Cancelled())
                self._leave(live, "cancelled")
        self._forget_done()

    def _admit(self) -> None:
        while self._waiting and len(self._live) < self._hooks.concurrency:
            waiting = self._waiting.popleft()
            item = waiting.item
            try:
                begin(item)
                sequence = self._hooks.compute(waiting.value, item.context)
            except BaseException as error:  # noqa: BLE001
                self._fail(item.id, error)
                self._registry.close(item)
                continue
            self._live.append(_Live(item, sequence))

    def _step(self) -> None:
        ready = [live for live in self._live if live.may_send()]
        if not ready:
            if self._live:
                self._wait_for_credit()
            return
        set_current_items([live.item for live in ready])
        try:
            entries = self._api.step([live.sequence for live in ready])
            entries = as_list(entries, len(ready), _RULE)
        except BaseException as error:  # noqa: BLE001
            self._fail_all(error)
            return
        for live, entry in zip(ready, entries):
            self._take_entry(live, entry)
        self._forget_done()

    def _wait_for_credit(self) -> None:
        """Blocks until there is credit, or something else to do."""
        self._send()
        self._outbox.flush()
        if self._registry.ended:
            for live in self._live:
                live.item.cancel()
            return
        waiting = select.poll()
        waiting.register(self._woken, select.POLLIN)
        if self._is_open and self._held is None:
            waiting.register(self._sock, select.POLLIN)
        waiting.poll(None if self._held is None else _LOOK_MILLISECONDS)
        self._outbox.resume()
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            return  # A request woke it.

    def _take_entry(self, live: _Live, entry: Any) -> None:
        if entry is None:
            return
        is_last = isinstance(entry, Last)
        set_current_items((live.item,))
        try:
            if isinstance(entry, BaseException):
                raise entry
            if entry is not FINISHED:
                self._keep(live, entry.output if is_last else entry)
            if entry is FINISHED or is_last:
                self._answer(live)
                self._leave(live, "finished")
        except BaseException as error:  # noqa: BLE001  (one sequence fails alone)
            self._fail(live.item.id, error)
            self._leave(live, "error")

    def _keep(self, live: _Live, output: Any) -> None:
        item = live.item
        if not self._hooks.stream:
            live.outputs.append(output)
            return
        kind, data = encode_item(self._hooks.encode(output, item.context))
        self._has_first = self._has_first or item.used == 0
        item.used += len(data) + frames.LENGTH.size
        self._pieces.append((item.id, kind, data))

    def _answer(self, live: _Live) -> None:
        item = live.item
        if self._hooks.stream:
            self._pieces.append(end(item.id, context=item.context))
        else:
            end_stage(item.context)
            encoded = self._hooks.encode(live.outputs, item.context)
            body = self._hooks.body_of(encoded, item.context)
            end_stage(item.context)
            if item.context is not None and item.context._stages is not None:
                body = item.context._stages.added_to(body)
            self._pieces.append(response_or_error(item.id, body))

    def _fail(self, id: int, error: BaseException, said: set[str] | None = None) -> None:
        self._pieces.append(failure(id, error, self._hooks.stream, said))

    def _fail_all(self, error: BaseException) -> None:
        """Ends all sequences: a step that raised leaves them in no known state."""
        said: set[str] = set()
        for live in self._live:
            self._fail(live.item.id, error, said)
            self._leave(live, "error")
        self._forget_done()

    def _leave(self, live: _Live, reason: str) -> None:
        live.is_done = True
        self._registry.close(live.item)
        set_current_items((live.item,))
        try:
            self._api.finish(live.sequence, reason)
        except BaseException as error:  # noqa: BLE001  (the request is answered)
            print_of(error)

    def _forget_done(self) -> None:
        self._live = [live for live in self._live if not live.is_done]

    def _send(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            # The first items go out at once: clients wait for them.
            self._outbox.add_all(pieces, hold=not self._has_first)
            self._has_first = False
