"""The control connection: what must be seen while a model runs."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from litplex._launched.request_marks import set_current_requests
from litplex._worker import current
from litplex._worker.control.metrics import metrics_frame
from litplex._worker.wire import frames

if TYPE_CHECKING:
    from litplex._launched.sources import Sources
    from litplex._worker.control.health import Health
    from litplex._worker.control.registry import Registry
    from litplex._worker.hooks.hooks import Hooks
    from litplex._worker.live.patches import Patches
    from litplex._worker.wire.frames import Payload


class Control:
    """Follows the control connection on a thread of its own, which costs nothing while it is idle.

    Args:
        sock: The control connection. This thread writes to it, and at the end
            :meth:`send_metrics`.
        reader: Its frames.
        data: The data connection, whose reading side is shut down when no more work will come.
        registry: The items of the worker.
        hooks: The hooks of the model.
        health: The checks of the model's health; None if it has no ``health``.
        sends_metrics: Whether the server takes the metrics of the model.
        sources: The source files that are loaded.

    Attributes:
        patches: The changes of the model's code; None if the server changes no code.
        hibernates: Whether the server wants the worker to hibernate, and not to exit.
    """

    def __init__(
        self,
        sock: socket.socket,
        reader: frames.FrameReader,
        data: socket.socket,
        registry: Registry,
        hooks: Hooks,
        *,
        health: Health | None,
        sends_metrics: bool,
        sources: Sources,
    ) -> None:
        self._sock = sock
        self._reader = reader
        self._data = data
        self._registry = registry
        self._hooks = hooks
        self._health = health
        self._says_changes = sends_metrics
        self._sources = sources
        sources.tell = self._tell_sources
        self.patches: Patches | None = None
        self.hibernates = False
        self._writing = threading.Lock()
        self._farewell = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="litplex-control", daemon=True)
        #: The FrameError that ended the connection, if one did.
        self.error: frames.FrameError | None = None
        self._handlers: dict[int, Callable[..., None]] = {
            frames.CANCEL: self._cancel,
            frames.CREDIT: self._grant,
            frames.PING: self._pong,
            frames.MEASURE: self._measure,
            frames.BYE: self._bye,
            frames.PATCH: self._patch,
            frames.HIBERNATE: self._hibernate,
        }

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wait_for_farewell(self) -> None:
        """Blocks until the server has said how this connection ends, or is gone."""
        self._farewell.wait()
        if self.hibernates:
            self._thread.join()

    def _follow(self) -> None:
        """A lost server is handled like a goodbye."""
        # `cost` is called before its request is queued.
        current.set_none()
        try:
            self._handle_all()
            while not self.hibernates and self._reader.receive():
                self._handle_all()
        except frames.FrameError as error:
            self.error = error
        except OSError:
            pass
        finally:
            self._stop_reading()
            self._registry.end()
            self._farewell.set()
            if self.patches is not None:
                self.patches.end()

    def _handle_all(self) -> None:
        frame = self._reader.next()
        while frame is not None:
            kind, flags, _, id, payload = frame
            handle = self._handlers.get(kind)
            if handle is None:
                raise frames.misplaced(kind)
            handle(id, flags, payload)
            frame = self._reader.next()

    def _cancel(self, id: int, *_: Any) -> None:
        self._registry.cancel(id)

    def _grant(self, id: int, _: Any, payload: Payload) -> None:
        if len(payload) != frames.LENGTH.size:
            raise frames.FrameError(f"a credit has {len(payload)} bytes")
        self._registry.grant(id, frames.LENGTH.unpack(payload)[0])

    def _pong(self, id: int, *_: Any) -> None:
        status = 0
        if self._health is not None:
            status = self._health.status
            self._health.refresh()
        self.send(frames.encode(frames.PONG, status=status, id=id))
        self.send_metrics()
        self._sources.report()

    def _tell_sources(self, loaded: list[dict[str, str]]) -> None:
        # A hook may load a file after the server has gone.
        with contextlib.suppress(OSError):
            self.send(frames.encode_message(frames.SOURCES, {"sources": loaded}))

    def send_metrics(self) -> None:
        """Tells what the model has measured since the last time."""
        changed = metrics_frame(self._hooks.api) if self._says_changes else b""
        if changed:
            self.send(changed)

    def send(self, data: bytes) -> None:
        """Sends a frame, from any thread."""
        with self._writing:
            self._sock.sendall(data)

    def _measure(self, id: int, flags: int, payload: Payload) -> None:
        status, payload = self._hooks.measure(flags, payload)
        set_current_requests(())
        self.send(frames.encode(frames.COST, payload, status=status, id=id))

    def _patch(self, id: int, _: Any, payload: Payload) -> None:
        if self.patches is None:
            raise frames.misplaced(frames.PATCH)
        self.patches.follow(id, frames.read_message(payload))

    def _bye(self, *_: Any) -> None:
        # Running streams still need their credit: the thread goes on.
        self._stop_reading()
        self._farewell.set()

    def _hibernate(self, *_: Any) -> None:
        self.hibernates = True

    def _stop_reading(self) -> None:
        # The loop ends once it has answered the requests that had arrived.
        with contextlib.suppress(OSError):
            self._data.shutdown(socket.SHUT_RD)
