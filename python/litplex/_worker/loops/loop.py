"""The worker's main loop for plain hooks: requests in, hooks, answers out."""

from litplex._launched.request_marks import compute
from litplex._worker.hooks.hooks import say_retry
from litplex._worker.loops.outbox import Outbox
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


class Loop:
    """Serves one data connection until it ends."""

    def __init__(self, sock, reader, hooks, register):
        self._reader = reader
        self._hooks = hooks
        self._register = register
        self._cancelled = register.cancelled
        self._outbox = Outbox(sock)
        self._streams = Streams(hooks, self._outbox, register)
        self._batch = []
        if hooks.max_batch_size > 1:
            self._take = self._collect
        elif hooks.stream:
            self._take = self._stream
        else:
            self._take = self._answer

    def run(self):
        """Returns when the server is gone or wants no more, after what had arrived is answered.

        Raises:
            FrameError: what came is not the protocol.
            ConnectionError: the server is gone and does not read answers either.
        """
        reader, outbox, take = self._reader, self._outbox, self._take
        while True:
            frame = reader.next()
            if frame is None:
                outbox.flush()
                if not reader.receive():
                    return
                outbox.resume()
                continue
            kind, flags, _, id, payload = frame
            if kind != frames.REQUEST:
                raise frames.misplaced(kind)
            take(id, flags, payload)

    def _answer(self, id, flags, payload):
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
        self._outbox.add(answer, hold=self._reader.has_more())

    def _answer_watched(self, id, request, context):
        item = self._register.open(id, context)
        try:
            if item.cancelled:
                raise Cancelled
            return response(id, *self._hooks.answer(request, context))
        finally:
            self._register.close(item)

    def _stream(self, id, flags, payload):
        try:
            request, context = self._hooks.read(flags, payload)
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001
            self._outbox.add(end(id, ending_of(error)), hold=False)
            return
        self._streams.answer(id, request, context)

    def _collect(self, id, flags, payload):
        """Decodes one item of a batch, and runs the batch when it is the last."""
        item = None
        try:
            if id in self._cancelled:
                self._cancelled.discard(id)
                raise Cancelled
            request, context = self._hooks.read(flags, payload)
            item = self._register.open(id, context)
            self._batch.append((item, self._hooks.decode(request, context)))
            end_stage(context)
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001  (it fails alone)
            if item is not None:
                self._register.close(item)
            self._fail(id, error)
        if not flags & frames.MORE:
            batch, self._batch = self._batch, []
            # Nothing may wait behind a batch.
            self._outbox.flush()
            self._run_batch(batch)
            self._outbox.flush()

    def _run_batch(self, batch):
        wanted = [(item, x) for item, x in batch if not item.cancelled]
        for item, _ in batch:
            if item.cancelled:
                self._fail(item.id, Cancelled())
        if wanted:
            items, inputs = zip(*wanted)
            compute(items)
            answer = self._streams.answer_batch if self._hooks.stream else self._answer_batch
            answer(list(items), list(inputs))
        for item, _ in batch:
            self._register.close(item)

    def _fail(self, id, error):
        if self._hooks.stream:
            self._outbox.put(end(id, ending_of(error)))
        else:
            self._outbox.put(response(id, *encode_error(error)))

    def _answer_batch(self, items, inputs):
        error = None
        try:
            answers = self._hooks.answer_batch(inputs, [item.context for item in items])
        except BaseException as raised:  # noqa: BLE001
            error = raised
        if error is not None:
            # Not where it was caught: it would be in the traceback of every error to come.
            self._fail_batch(error, items, inputs)
            return
        for item, answer in zip(items, answers):
            self._outbox.put(response_or_error(item.id, answer))

    def _fail_batch(self, error, items, inputs):
        said: set[str] = set()
        failed = encode_error(error, said)
        if not self._hooks.may_retry(error, len(items)):
            for item in items:
                self._outbox.put(response(item.id, *failed))
            return
        say_retry(error, len(items))
        for item, x in zip(items, inputs):
            self._outbox.put(response_or_error(item.id, self._retry(item, x, said)))
            self._outbox.flush()

    def _retry(self, item, x, said):
        try:
            if item.cancelled:
                raise Cancelled
            compute((item,))
            return self._hooks.answer_batch([x], [item.context])[0]
        except BaseException as error:  # noqa: BLE001
            return encode_error(error, said)
