"""Streams of plain hooks: one at a time, or a batch side by side."""

from litplex._api import FINISHED
from litplex._worker.hooks.hooks import as_list
from litplex._worker.loops.batch_streams import Lanes
from litplex._worker.wire import frames
from litplex._worker.wire.encode import Cancelled, encode_item, end, ending_of

_LENGTH = frames.LENGTH.size


class Streams:
    """Computes streams on the thread that calls, which waits where there is no credit."""

    def __init__(self, hooks, outbox, register):
        self._hooks = hooks
        self._outbox = outbox
        self._register = register

    def answer(self, id, request, context):
        """Computes one stream and sends it to its end."""
        item = self._register.open(id, context)
        error = None
        try:
            if item.cancelled:
                raise Cancelled
            self._send(item, *self._hooks.outputs(request, context))
        except BaseException as raised:  # noqa: BLE001
            error = raised
        finally:
            self._register.close(item)
        self._outbox.add(end(id, ending_of(error), context), hold=False)

    def _send(self, item, outputs, source):
        add, id, used, granted = self._outbox.add, item.id, 0, item.granted
        # The first goes out at once and alone: somebody waits for it.
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

    def _wait_for_credit(self, item, used):
        if item.granted <= used:
            self._outbox.flush()
            self._register.wait(lambda: item.cancelled or item.granted > used)
            self._outbox.resume()
        return 0 if item.cancelled else item.granted

    def answer_batch(self, items, inputs):
        """Computes the streams of a batch and sends them to their ends."""
        lanes, error = Lanes(items, self._outbox), None
        try:
            contexts = [item.context for item in items]
            self._follow(lanes, contexts, *self._hooks.steps(inputs, contexts))
        except BaseException as raised:  # noqa: BLE001
            error = raised
        lanes.finish(error)
        while not lanes.is_sent() and self._release(lanes):
            continue
        self._outbox.flush()

    def _follow(self, lanes, contexts, steps, source):
        hooks = self._hooks
        encode = None if hooks.encodes_stream else hooks.encode
        try:
            for outputs in steps:
                outputs = as_list(outputs, len(contexts))
                for at, item in lanes.open():
                    lanes.push(at, encoded(encode, outputs[at], item.context))
                lanes.release()
                while not lanes.has_room():
                    if not self._release(lanes, lanes.patience()):
                        if self._register.ended:
                            return
                        lanes.drop_full()
                if not lanes.open():
                    return
        finally:
            close(steps, source)

    def _release(self, lanes, timeout=None):
        """Waits for credit and sends what it is for; returns whether any came in time."""
        self._outbox.flush()
        has_come = self._register.wait(lanes.can_release, timeout)
        self._outbox.resume()
        lanes.release()
        return has_come


def encoded(encode, output, context):
    """Returns what is sent for an output: an exception where encoding it raises one."""
    if encode is None or output is FINISHED or isinstance(output, BaseException):
        return output
    try:
        return encode(output, context)
    except BaseException as error:  # noqa: BLE001  (one item fails alone)
        return error


def close(*generators):
    """Lets the ``finally`` of generators run, whether they have ended or not."""
    for generator in generators:
        if hasattr(generator, "close"):
            generator.close()
