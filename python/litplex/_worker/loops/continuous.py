"""The worker's main loop for models that requests join and leave between steps."""

import select
import socket
from collections import deque
from typing import Any

from litplex._api import FINISHED, Last
from litplex._launched.request_marks import compute
from litplex._launched.tracebacks import print_of
from litplex._worker.hooks.hooks import as_list
from litplex._worker.loops.outbox import Outbox
from litplex._worker.wire import frames
from litplex._worker.wire.encode import (
    Cancelled,
    encode_body,
    encode_error,
    encode_item,
    end,
    ending_of,
    response,
    response_or_error,
)
from litplex._worker.wire.stages import end_stage, stages_of

_RULE = "step must give one entry for each sequence"


class _Live:
    """An admitted request."""

    def __init__(self, item, sequence):
        self.item = item
        self.sequence = sequence
        # Kept for the answer where they are not sent as they come.
        self.outputs = []
        self.is_done = False

    def may_send(self):
        return self.item.used < self.item.granted


class ContinuousLoop:
    """Serves one data connection until it ends."""

    def __init__(self, sock, reader, hooks, register):
        self._sock = sock
        self._reader = reader
        self._hooks = hooks
        self._api = hooks.api
        self._register = register
        self._outbox = Outbox(sock)
        self._pieces = []
        self._has_first = False
        # Requests that wait for a place, with their inputs.
        self._waiting: deque[Any] = deque()
        self._live: list[_Live] = []
        self._is_open = True
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        register.notify = self._notify

    def run(self):
        """Returns when the server is gone or wants no more, after what had arrived is answered.

        Raises:
            FrameError: what came is not the protocol.
            ConnectionError: the server is gone and does not read answers either.
        """
        try:
            while self._is_open or self._live or self._waiting:
                self._read()
                self._drop_cancelled()
                self._admit()
                self._step()
                self._send()
            self._outbox.flush()
        finally:
            for live in list(self._live):
                self._leave(live, "cancelled")

    def _notify(self, _):
        """Called from the control thread."""
        try:
            self._wake.send(b"\0")
        except BlockingIOError:
            return  # It is awake already.

    def _read(self):
        """Takes the requests that have come; blocks only where there is nothing else to do."""
        if not self._is_open:
            got = None
        elif self._live or self._waiting:
            got = self._reader.poll()
        else:
            self._outbox.flush()
            got = self._reader.receive()
            self._outbox.resume()
        if got is False:
            self._is_open = False
        frame = self._reader.next()
        while frame is not None:
            kind, flags, _, id, payload = frame
            if kind != frames.REQUEST:
                raise frames.misplaced(kind)
            self._take(id, flags, payload)
            frame = self._reader.next()

    def _take(self, id, flags, payload):
        item = None
        try:
            request, context = self._hooks.read(flags, payload)
            item = self._register.open(id, context)
            if item.cancelled:
                raise Cancelled
            self._waiting.append((item, self._hooks.decode(request, context)))
            end_stage(context)
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001  (sys.exit in a hook is its error too)
            if item is not None:
                self._register.close(item)
            self._fail(id, error)

    def _drop_cancelled(self):
        if any(item.cancelled for item, _ in self._waiting):
            waiting, self._waiting = self._waiting, deque()
            for item, x in waiting:
                if not item.cancelled:
                    self._waiting.append((item, x))
                    continue
                self._fail(item.id, Cancelled())
                self._register.close(item)
        for live in self._live:
            if live.item.cancelled:
                self._fail(live.item.id, Cancelled())
                self._leave(live, "cancelled")
        self._forget_done()

    def _admit(self):
        while self._waiting and len(self._live) < self._hooks.concurrency:
            item, x = self._waiting.popleft()
            compute((item,))
            try:
                if item.cancelled:
                    raise Cancelled
                for stages in stages_of([item.context]):
                    stages.begin()
                sequence = self._hooks.compute(x, item.context)
            except BaseException as error:  # noqa: BLE001
                self._fail(item.id, error)
                self._register.close(item)
                continue
            self._live.append(_Live(item, sequence))

    def _step(self):
        ready = [live for live in self._live if live.may_send()]
        if not ready:
            if self._live:
                self._wait_for_credit()
            return
        compute([live.item for live in ready])
        try:
            entries = self._api.step([live.sequence for live in ready])
            entries = as_list(entries, len(ready), _RULE)
        except BaseException as error:  # noqa: BLE001
            self._fail_all(error)
            return
        for live, entry in zip(ready, entries):
            self._take_entry(live, entry)
        self._forget_done()

    def _wait_for_credit(self):
        """Blocks until there is credit, or something else to do."""
        self._send()
        self._outbox.flush()
        if self._register.ended:
            for live in self._live:
                live.item.cancel()
            return
        waiting = select.poll()
        waiting.register(self._woken, select.POLLIN)
        if self._is_open:
            waiting.register(self._sock, select.POLLIN)
        waiting.poll()
        self._outbox.resume()
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            return  # A request woke it.

    def _take_entry(self, live, entry):
        if entry is None:
            return
        is_last = isinstance(entry, Last)
        compute((live.item,))
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

    def _keep(self, live, output):
        item = live.item
        if not self._hooks.stream:
            live.outputs.append(output)
            return
        kind, data = encode_item(self._hooks.encode(output, item.context))
        self._has_first = self._has_first or item.used == 0
        item.used += len(data) + frames.LENGTH.size
        self._pieces.append((item.id, kind, data))

    def _answer(self, live):
        item = live.item
        if self._hooks.stream:
            self._pieces.append(end(item.id, context=item.context))
        else:
            for stages in stages_of([item.context]):
                stages.end()
            body = encode_body(self._hooks.encode(live.outputs, item.context))
            for stages in stages_of([item.context]):
                stages.end()
                body = stages.added_to(body)
            self._pieces.append(response_or_error(item.id, body))

    def _fail(self, id, error, said=None):
        if self._hooks.stream:
            self._pieces.append(end(id, ending_of(error, said)))
        else:
            self._pieces.append(response(id, *encode_error(error, said)))

    def _fail_all(self, error):
        """Ends all sequences: a step that raised leaves them in no known state."""
        said: set[str] = set()
        for live in self._live:
            self._fail(live.item.id, error, said)
            self._leave(live, "error")
        self._forget_done()

    def _leave(self, live, reason):
        live.is_done = True
        self._register.close(live.item)
        compute((live.item,))
        try:
            self._api.finish(live.sequence, reason)
        except BaseException as error:  # noqa: BLE001  (the request is answered)
            print_of(error)

    def _forget_done(self):
        self._live = [live for live in self._live if not live.is_done]

    def _send(self):
        pieces, self._pieces = self._pieces, []
        if pieces:
            # The first items go out at once: somebody waits for them.
            self._outbox.add_all(pieces, hold=not self._has_first)
            self._has_first = False
