"""Tells the server what the model has measured."""

from __future__ import annotations

import json
from typing import Any

from litplex._worker.wire import frames


def metrics_frame(api: Any) -> bytes:
    """Returns the frame that says what has changed since the last; nothing where nothing has."""
    metrics = api._litplex_metrics
    changed = metrics.take() if metrics is not None else []
    # A sum of finite numbers may be infinite, which JSON cannot say.
    said = [text for text in map(_text, changed) if text]
    if not said:
        return b""
    return frames.encode(frames.METRICS, f'{{"metrics":[{",".join(said)}]}}'.encode())


def _text(change: Any) -> str:
    try:
        return json.dumps(change, allow_nan=False)
    except ValueError:
        return ""
