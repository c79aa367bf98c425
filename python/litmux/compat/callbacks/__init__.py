"""Callbacks, as in ``litserve.callbacks``."""

from litmux.compat.callbacks.base import Callback, CallbackRunner, EventTypes, NoopCallback

__all__ = ["Callback", "CallbackRunner", "EventTypes", "NoopCallback"]
