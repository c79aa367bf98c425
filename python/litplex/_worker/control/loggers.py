"""Passes what a model logs to its loggers."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

# The most entries that wait for loggers that are slower than the model.
_MOST_WAITING = 10_000
_CLOSE_SECONDS = 5.0

_logger = logging.getLogger("litserve.loggers")


class LogQueue:
    """Loggers on a thread of their own, so that none delays a request.

    Args:
        loggers: Objects whose ``process(key, value)`` is called for each entry, in order. An
            exception is logged.
    """

    def __init__(self, loggers: list[Any]) -> None:
        self._loggers = loggers
        self._entries: queue.Queue[Any] = queue.Queue(_MOST_WAITING)
        self._has_dropped = False
        self._thread = threading.Thread(target=self._run, name="litplex-loggers", daemon=True)
        self._thread.start()

    def put(self, key: str, value: Any) -> None:
        """Adds an entry; drops it if too many wait, and warns once."""
        try:
            self._entries.put_nowait((key, value))
        except queue.Full:
            if not self._has_dropped:
                self._has_dropped = True
                _logger.warning("loggers are slower than the model: entries are dropped")

    def close(self) -> None:
        """Waits a while until all entries are processed."""
        try:
            self._entries.put(None, timeout=_CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            entry = self._entries.get()
            if entry is None:
                return
            for each in self._loggers:
                try:
                    each.process(*entry)
                except BaseException:
                    _logger.exception("the logger %r raised", each)
