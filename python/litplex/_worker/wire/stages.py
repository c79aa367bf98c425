"""The durations of the stages of a request, if the server asks for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from litplex._worker.wire import frames
from litplex._worker.wire.encode import followed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litplex._http import Context
    from litplex._worker.wire.encode import Answer

now = time.perf_counter


class Stages:
    """Measures the stages of one request, one after the other.

    Args:
        began: When the first began, as :func:`now` says it.

    Attributes:
        seconds: How long each took that has ended: decoding, computing, encoding.
    """

    def __init__(self, began: float) -> None:
        self.seconds: list[float] = []
        self._since = began

    def begin(self) -> None:
        """Begins the next stage now; without it, it began where the last ended."""
        self._since = now()

    def suspend(self) -> None:
        """Stops the time of a stage, until :meth:`resume`."""
        self._since = now() - self._since

    def resume(self) -> None:
        """Goes on with a stage."""
        self._since = now() - self._since

    def end(self) -> None:
        """Ends a stage, and begins the next."""
        ended = now()
        self.seconds.append(ended - self._since)
        self._since = ended

    def added_to(self, answer: Any) -> Answer:
        """Returns the status, flags and payload of a response with what was measured."""
        status, flags, payload = answer
        meta, body = frames.split_meta(payload) if flags & frames.META else ({}, payload)
        meta["stages"] = self.seconds
        measured = frames.with_meta(meta, body)
        return status, flags | frames.META, followed(measured, getattr(payload, "background", None))


def begin_stage(context: Context | None) -> None:
    """Begins a stage of the request with this context now, where it is measured: it has waited."""
    if context is not None and context._stages is not None:
        context._stages.begin()


def end_stage(context: Context | None) -> None:
    """Ends a stage of the request with this context, where it is measured."""
    if context is not None and context._stages is not None:
        context._stages.end()


def stages_of(contexts: Sequence[Context | None]) -> list[Stages]:
    """Returns what measures the requests of a batch, of those that are measured."""
    return [c._stages for c in contexts if c is not None and c._stages is not None]
