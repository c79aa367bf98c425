"""Callbacks of programs written for LitServe: the call of one event."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

# The name under which programs written for LitServe expect to find it.
_logger = logging.getLogger("litserve.callbacks")


def trigger(callbacks: Iterable[Any], event: str, *args: Any, **kwargs: Any) -> None:
    """Calls the method of this name of each callback; an exception is logged."""
    for callback in callbacks:
        try:
            getattr(callback, event)(*args, **kwargs)
        except Exception:
            _logger.exception("%s of the callback %r raised", event, callback)
