"""Callbacks, as in ``litserve.callbacks``."""

from litplex.compat.callbacks.base import Callback, CallbackRunner, EventTypes, NoopCallback

__all__ = ["Callback", "CallbackRunner", "EventTypes", "NoopCallback"]
