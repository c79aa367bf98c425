"""How long the stages of a request took, where the server wants to know that."""

import time

from litplex._worker.wire import frames
from litplex._worker.wire.encode import followed

now = time.perf_counter


class Stages:
    """Measures the stages of one request, one after the other.

    Args:
        began: When the first began, as :func:`now` says it.

    Attributes:
        seconds: How long each took that has ended: decoding, computing, encoding.
    """

    def __init__(self, began):
        self.seconds = []
        self._since = began

    def begin(self):
        """Begins the next stage now; without it, it began where the last ended."""
        self._since = now()

    def end(self):
        """Ends a stage, and begins the next."""
        ended = now()
        self.seconds.append(ended - self._since)
        self._since = ended

    def added_to(self, answer):
        """Returns the status, flags and payload of a response with what was measured."""
        status, flags, payload = answer
        meta, body = frames.split_meta(payload) if flags & frames.META else ({}, payload)
        meta["stages"] = self.seconds
        measured = frames.with_meta(meta, body)
        return status, flags | frames.META, followed(measured, getattr(payload, "background", None))


def begin_stage(context):
    """Begins a stage of the request with this context now, where it is measured: it has waited."""
    if context is not None and context._stages is not None:
        context._stages.begin()


def end_stage(context):
    """Ends a stage of the request with this context, where it is measured."""
    if context is not None and context._stages is not None:
        context._stages.end()


def stages_of(contexts):
    """Returns what measures the requests of a batch, of those that are measured."""
    return [c._stages for c in contexts if c is not None and c._stages is not None]
