"""Takes the next batch from the connection while ``predict`` computes the present one.

A thread receives the frames and reads their JSON. Hooks are not called here: authors expect that
one hook runs at a time, and the server must know what a lost worker can have begun. For the same
reasons, the responses of a batch are sent before the next one begins.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from litplex._launched.request_marks import set_current_request
from litplex._worker.wire import frames

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from litplex._http import Context

# The shortest `predict` during which a thread is worth its wake-up.
_WORTH_SECONDS = 0.001
_WEIGHT_OF_NEW = 0.2
# The part of the usual time of `predict` for which the thread waits for frames. Were it to wait
# longer, the next frames would wake it beside the main thread.
_PATIENCE = 0.8

_now = time.perf_counter


class _Read:
    """A request that was read, in place of the payload of its frame."""

    __slots__ = ("context", "error", "value")

    def __init__(self, read: Any, flags: int, payload: frames.Payload) -> None:
        self.error: BaseException | None = None
        self.context: Context | None = None
        try:
            self.value, self.context = read(flags, payload)
        except BaseException as error:  # noqa: BLE001  (it fails alone, when its turn comes)
            self.error = error
        if self.context is not None and self.context._stages is not None:
            self.context._stages.suspend()

    def result(self) -> Any:
        """Returns the value and the context, as if they were read now."""
        if self.error is not None:
            raise self.error
        if self.context is not None:
            set_current_request(self.context._name)
            if self.context._stages is not None:
                self.context._stages.resume()
        return self.value, self.context


class ReadAhead:
    """Reads at most one batch ahead.

    Args:
        sock: The data connection.
        reader: The reader of its frames, which the thread uses while ``predict`` computes.
        read: Returns the value and the context of a request, of its flags and payload. It calls no
            hook.
    """

    def __init__(self, sock: socket.socket, reader: frames.FrameReader, read: Any) -> None:
        self._reader = reader
        self._read = read
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        # Frames of requests have a `_Read` as their payload.
        self._taken: deque[Any] = deque()
        # Whether nothing more is to be taken until what was taken is used.
        self._is_complete = False
        self._is_computing = False
        self._usual_seconds = 0.0
        self._lock = threading.Lock()
        self._begun = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_over = False

    def next(self) -> Any:
        """Returns the next frame that is whole, or None, as the reader does."""
        if not self._taken:
            return self._reader.next()
        frame = self._taken.popleft()
        self._is_complete = bool(self._taken) and self._is_complete
        return frame

    def read(self, flags: int, payload: Any) -> Any:
        """Returns the value and the context of a request, of the flags and payload of its frame."""
        return payload.result() if type(payload) is _Read else self._read(flags, payload)

    def around(self, compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Returns a function that calls this one, and reads ahead meanwhile."""

        def computed(batch: Any, contexts: Any) -> Any:
            began = _now()
            is_worth = self._usual_seconds >= _WORTH_SECONDS
            if is_worth:
                self._begin()
            try:
                return compute(batch, contexts)
            finally:
                if is_worth:
                    self._end()
                self._usual_seconds += _WEIGHT_OF_NEW * (_now() - began - self._usual_seconds)

        return computed

    def end(self) -> None:
        """Ends the thread: no batch will be computed any more."""
        self._is_over = True
        self._begun.set()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="litplex-read", daemon=True)
            self._thread.start()
        self._is_computing = True
        self._begun.set()

    def _end(self) -> None:
        # The thread may be reading a request, which the main thread would else do.
        with self._lock:
            self._is_computing = False

    def _run(self) -> None:
        while True:
            self._begun.wait()
            if self._is_over:
                return
            self._begun.clear()
            has_more = True
            while has_more and self._is_computing:
                with self._lock:
                    if self._is_computing:
                        self._take()
                has_more = not self._is_complete and bool(
                    self._readable.poll(1000 * _PATIENCE * self._usual_seconds)
                )

    def _take(self) -> None:
        """Takes what has arrived, up to the end of a batch."""
        try:
            if not self._is_complete:
                self._is_complete = self._reader.poll() is False
            while not self._is_complete:
                frame = self._reader.next()
                if frame is None:
                    return
                self._take_frame(frame)
        except (OSError, frames.FrameError):
            # The main thread meets the same error.
            self._is_complete = True

    def _take_frame(self, frame: frames.Frame) -> None:
        kind, flags, status, id, payload = frame
        is_request = kind == frames.REQUEST
        taken = _Read(self._read, flags, payload) if is_request else bytes(payload)
        self._taken.append((kind, flags, status, id, taken))
        self._is_complete = not (is_request and flags & frames.MORE)
