"""Callbacks of events, which programs subclass, and their runner."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from litplex._callbacks import trigger


class EventTypes(enum.Enum):
    """The events; each value is the name of a method of :class:`Callback`."""

    BEFORE_SETUP = "on_before_setup"
    AFTER_SETUP = "on_after_setup"
    BEFORE_DECODE_REQUEST = "on_before_decode_request"
    AFTER_DECODE_REQUEST = "on_after_decode_request"
    BEFORE_ENCODE_RESPONSE = "on_before_encode_response"
    AFTER_ENCODE_RESPONSE = "on_after_encode_response"
    BEFORE_PREDICT = "on_before_predict"
    AFTER_PREDICT = "on_after_predict"
    ON_SERVER_START = "on_server_start"
    ON_SERVER_END = "on_server_end"
    ON_REQUEST = "on_request"
    ON_RESPONSE = "on_response"


class Callback:
    """Receives events: a subclass overrides the methods of the events that it handles.

    Events of hooks occur in the worker and have the model (``lit_api``). A hook that raises has no
    second event. Events of requests and of the server have the server (``litserver``); if a
    callback handles any event of requests, all of these occur in the app host, on one instance of
    the callback. All arguments are passed by name. An exception is logged, and the request goes on.
    """

    def on_before_setup(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``lit_api``."""

    def on_after_setup(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``lit_api``."""

    def on_before_decode_request(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``lit_api``; once for a batch."""

    def on_after_decode_request(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``lit_api``; once for a batch."""

    def on_before_predict(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``lit_api``; once for a batch or stream."""

    def on_after_predict(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``lit_api``; of a stream, after its last output."""

    def on_before_encode_response(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``lit_api``; once for a batch or stream."""

    def on_after_encode_response(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``lit_api``; once for a batch or stream."""

    def on_server_start(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``litserver``."""

    def on_server_end(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``litserver``."""

    def on_request(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``active_requests``, the number of active requests including this one, and
        ``litserver``; before a request is passed on to its model."""

    def on_response(self, *args: Any, **kwargs: Any) -> None:
        """Gets ``litserver``; before a response without an error is sent, or after the end of its
        stream."""


class NoopCallback(Callback):
    """Does nothing at any event."""


class CallbackRunner:
    """Calls several callbacks for each event, in their order.

    Args:
        callbacks: One :class:`Callback`, or a list of them. Default: none.

    Raises:
        ValueError: an object is no :class:`Callback`.
    """

    def __init__(self, callbacks: Callback | Sequence[Callback] | None = None) -> None:
        self._callbacks: list[Callback] = []
        if callbacks:
            self._add_callbacks(callbacks)

    def _add_callbacks(self, callbacks: Callback | Sequence[Callback]) -> None:
        added = callbacks if isinstance(callbacks, list) else [callbacks]
        for callback in added:
            if not isinstance(callback, Callback):
                raise ValueError(
                    f"Invalid callback type: {callback!r}; give instances of subclasses of Callback"
                )
        self._callbacks += added

    def trigger_event(self, event_name: str, *args: Any, **kwargs: Any) -> None:
        """Calls the method of this name of each callback; an exception is logged."""
        trigger(self._callbacks, event_name, *args, **kwargs)
