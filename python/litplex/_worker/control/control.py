"""The control connection: what must be seen while a model runs."""

import contextlib
import socket
import threading
from collections.abc import Callable

from litplex._launched.request_marks import compute
from litplex._worker.control.metrics import changes
from litplex._worker.wire import frames


class Control:
    """Follows the control connection on a thread of its own, which costs nothing while it is idle.

    Args:
        sock: The control connection. This thread writes to it, and at the end
            :meth:`say_changes`.
        reader: Its frames.
        data: The data connection, whose reading side is shut down when no more work will come.
        register: What is told of items.
        hooks: The hooks of the model.
        health: What says whether the model is well; None where it has nothing to say.
        says_changes: Whether the server takes what the model measures.
    """

    def __init__(self, sock, reader, data, register, hooks, *, health, says_changes):
        self._sock = sock
        self._reader = reader
        self._data = data
        self._register = register
        self._hooks = hooks
        self._health = health
        self._says_changes = says_changes
        self._writing = threading.Lock()
        #: The FrameError that ended the connection, if one did.
        self.error = None
        self._handlers: dict[int, Callable[..., None]] = {
            frames.CANCEL: self._cancel,
            frames.CREDIT: self._grant,
            frames.PING: self._pong,
            frames.MEASURE: self._measure,
            frames.BYE: self._bye,
        }

    def start(self):
        """Starts the thread."""
        threading.Thread(target=self._follow, name="litplex-control", daemon=True).start()

    def _follow(self):
        """A lost server is handled like a goodbye."""
        try:
            self._handle_all()
            while self._reader.receive():
                self._handle_all()
        except frames.FrameError as error:
            self.error = error
        except OSError:
            pass
        finally:
            self._stop_reading()
            self._register.end()

    def _handle_all(self):
        frame = self._reader.next()
        while frame is not None:
            kind, flags, _, id, payload = frame
            handle = self._handlers.get(kind)
            if handle is None:
                raise frames.misplaced(kind)
            handle(id, flags, payload)
            frame = self._reader.next()

    def _cancel(self, id, *_):
        self._register.cancel(id)

    def _grant(self, id, _, payload):
        if len(payload) != frames.LENGTH.size:
            raise frames.FrameError(f"a credit has {len(payload)} bytes")
        self._register.grant(id, frames.LENGTH.unpack(payload)[0])

    def _pong(self, id, *_):
        status = 0
        if self._health is not None:
            status = self._health.status
            self._health.refresh()
        self._send(frames.encode(frames.PONG, status=status, id=id))
        self.say_changes()

    def say_changes(self):
        """Tells what the model has measured since the last time."""
        changed = changes(self._hooks.api) if self._says_changes else b""
        if changed:
            self._send(changed)

    def _send(self, data):
        with self._writing:
            self._sock.sendall(data)

    def _measure(self, id, flags, payload):
        status, payload = self._hooks.measure(flags, payload)
        compute(())
        self._send(frames.encode(frames.COST, payload, status=status, id=id))

    def _bye(self, *_):
        # Streams that are under way still need their credit: the thread goes on.
        self._stop_reading()

    def _stop_reading(self):
        # The loop ends once it has answered what had arrived.
        with contextlib.suppress(OSError):
            self._data.shutdown(socket.SHUT_RD)
