"""The worker's main loop: requests in, hooks, answers out."""

from litmux._worker import _frames as frames
from litmux._worker._hooks import encode_error, encode_item
from litmux._worker._outbox import Outbox


class Loop:
    """Serves one data connection until it ends."""

    def __init__(self, sock, reader, hooks):
        self._reader = reader
        self._hooks = hooks
        self._outbox = Outbox(sock)
        self._batch = []
        self._cancelled = set()
        if hooks.stream:
            self._take = self._stream
        elif hooks.max_batch_size > 1:
            self._take = self._collect
        else:
            self._take = self._answer

    def cancel(self, id):
        """Notes, from the control thread, that nobody waits for this answer any more."""
        self._cancelled.add(id)

    def run(self):
        """Returns when the server is gone or wants no more, after what had arrived is answered."""
        reader, outbox, take = self._reader, self._outbox, self._take
        try:
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
                    raise frames.FrameError(f"a frame of kind {kind} has no place here")
                take(id, flags, payload)
        except (BrokenPipeError, ConnectionResetError):
            return

    def _answer(self, id, flags, payload):
        try:
            response = _response(id, *self._hooks.answer(flags, payload))
        except BaseException as error:  # noqa: BLE001  (sys.exit in a hook is its error too)
            response = _response(id, *encode_error(error))
        self._outbox.add(response, hold=self._reader.has_more())

    def _collect(self, id, flags, payload):
        """Decodes one item of a batch, and runs the batch when it is the last."""
        try:
            self._batch.append((id, self._hooks.decode(flags, payload)))
        except BaseException as error:  # noqa: BLE001  (it fails alone)
            self._respond(id, encode_error(error))
        if not flags & frames.MORE:
            batch, self._batch = self._batch, []
            # Nothing may wait behind a batch.
            self._outbox.flush()
            self._run_batch(batch)
            self._outbox.flush()

    def _run_batch(self, batch):
        if not batch:
            return
        try:
            responses = self._hooks.answer_batch([item for _, item in batch])
        except BaseException as error:  # noqa: BLE001
            responses = [encode_error(error)] * len(batch)
        for (id, _), response in zip(batch, responses):
            self._respond(id, response)

    def _respond(self, id, response):
        self._outbox.put(_response(id, *response))

    def _stream(self, id, flags, payload):
        try:
            self._send_stream(id, flags, payload)
            end = frames.encode(frames.END, id=id)
        except BaseException as error:  # noqa: BLE001
            status, flags, payload = encode_error(error)
            end = frames.encode(frames.END, _plain(flags, payload), status=status, id=id)
        self._outbox.add(end, hold=False)
        self._cancelled.clear()

    def _send_stream(self, id, flags, payload):
        outputs, source = self._hooks.outputs(flags, payload)
        add, cancelled = self._outbox.add, self._cancelled
        # The first goes out at once and alone: somebody waits for it.
        hold = False
        try:
            for output in outputs:
                kind, item = encode_item(output)
                add((id, kind, item), hold=hold)
                hold = True
                if id in cancelled:
                    break
        finally:
            for generator in (outputs, source):
                if hasattr(generator, "close"):
                    generator.close()


def _response(id, status, flags, payload):
    if len(payload) > frames.MAX_PAYLOAD_BYTES:
        raise ValueError(f"an answer of {len(payload)} bytes is too large to be sent")
    return frames.HEADER.pack(len(payload), frames.RESPONSE, flags, status, id) + payload


def _plain(flags, payload):
    """Returns the JSON of an error; the end of a stream has no place for headers."""
    return bytes(frames.split_meta(payload)[1]) if flags & frames.META else payload
