"""Callbacks that log measurements."""

from __future__ import annotations

import logging
import time
from typing import Any

from litplex.compat.callbacks.base import Callback

_logger = logging.getLogger(__name__)


class PredictionTimeLogger(Callback):
    """Logs the duration of each ``predict``. With concurrent calls in a worker, as of ``async``
    hooks, durations are measured from the latest start."""

    def on_before_predict(self, lit_api: Any) -> None:
        self._started = time.perf_counter()

    def on_after_predict(self, lit_api: Any) -> None:
        _logger.info("Prediction took %.2f seconds", time.perf_counter() - self._started)


class RequestTracker(Callback):
    """Logs the number of active requests at each request."""

    def on_request(self, active_requests: int | None, **kwargs: Any) -> None:
        _logger.info("Active requests: %s", active_requests)
