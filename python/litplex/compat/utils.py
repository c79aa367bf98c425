"""The module ``litserve.utils``: logging, debugging, names of states."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib.util
import logging
import os
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from litplex import HTTPException
from litplex.compat._missing import missing, unavailable

if TYPE_CHECKING:
    from litplex import LitServer

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_logger = logging.getLogger("litserve")

add_ssl_context_from_env = unavailable(
    "litserve.utils.add_ssl_context_from_env", "the server reads the variables itself"
)
generate_random_zmq_address = unavailable(
    "litserve.utils.generate_random_zmq_address", "each worker has a socket of its own"
)


class LitAPIStatus:
    """The state of the response to a request."""

    START = "START"
    OK = "OK"
    ERROR = "ERROR"
    FINISH_STREAMING = "FINISH_STREAMING"


class LoopResponseType(enum.Enum):
    """The kind of a loop's responses: a stream, or one at the end."""

    STREAMING = "STREAMING"
    REGULAR = "REGULAR"


@dataclasses.dataclass
class WorkerSetupStatus:
    """The state of a worker."""

    STARTING: str = "starting"
    READY: str = "ready"
    ERROR: str = "error"
    FINISHED: str = "finished"


class PickleableHTTPException(HTTPException):
    """An :class:`~litplex.HTTPException`, all of which can be pickled."""

    @staticmethod
    def from_exception(exc: Any) -> PickleableHTTPException:
        """Returns a copy with the status and the detail of another exception."""
        return PickleableHTTPException(exc.status_code, exc.detail)


_QUEUES = "litplex owns the queues that a custom spec would read and fill"

__getattr__ = missing(__name__, {"ResponseBufferItem": _QUEUES})


def configure_logging(
    level: str | int = logging.INFO,
    format: str = _LOG_FORMAT,
    stream: TextIO | None = None,
    use_rich: bool = False,
) -> None:
    """Sets the level of the logger ``litserve``, and replaces its handlers.

    Args:
        level: The lowest level that is written, as a name or number. Default: INFO.
        format: The format of a line. Default: time, level, logger and message.
        stream: The stream that it writes to. Default: standard output.
        use_rich: Whether the package ``rich``, if it is installed, formats the lines.
            Default: False.

    Raises:
        ValueError: the level does not exist.
    """
    _logger.setLevel(level)
    handler: logging.Handler | None = _rich_handler() if use_rich else None
    if handler is None:
        handler = logging.StreamHandler(sys.stdout if stream is None else stream)
        handler.setFormatter(logging.Formatter(format))
    _logger.handlers[:] = [handler]
    _logger.propagate = False
    if use_rich and isinstance(handler, logging.StreamHandler):
        _logger.warning(
            '`rich` is not installed, so logs are plain; `pip install "litplex[litserve]"`'
        )


class _ToLitserve(logging.Handler):
    """Passes the records of this package on to the logger that programs configure."""

    def emit(self, record: logging.LogRecord) -> None:
        if _logger.isEnabledFor(record.levelno):
            _logger.handle(record)


def _pass_records_on() -> None:
    own = logging.getLogger("litplex.compat")
    own.setLevel(logging.DEBUG)
    own.propagate = False
    own.handlers[:] = [_ToLitserve()]


_pass_records_on()


def _rich_handler() -> logging.Handler | None:
    try:
        import rich.logging
    except ImportError:
        return None
    handler: logging.Handler = rich.logging.RichHandler(
        rich_tracebacks=True, show_time=True, show_path=False
    )
    return handler


def set_log_level(level: str | int) -> None:
    """Sets the lowest level that is written.

    Raises:
        ValueError: the level does not exist.
    """
    _logger.setLevel(level)


def add_log_handler(handler: logging.Handler) -> None:
    """Adds a handler to the logger ``litserve``."""
    _logger.addHandler(handler)


def is_package_installed(package_name: str) -> bool:
    """Returns whether a package or module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package_name) is not None
    except (ImportError, ValueError):
        return False


def dump_exception(exception: BaseException) -> bytes:
    """Returns the pickle of an exception."""
    return pickle.dumps(exception)


async def azip(*streams: AsyncIterator[Any]) -> AsyncIterator[tuple[Any, ...]]:
    """Yields tuples of one item of each stream, until the shortest stream ends."""
    import asyncio

    iterators = [stream.__aiter__() for stream in streams]
    while iterators:
        steps = (iterator.__anext__() for iterator in iterators)
        items = await asyncio.gather(*steps, return_exceptions=True)
        for item in items:
            if isinstance(item, StopAsyncIteration):
                return
            if isinstance(item, BaseException):
                raise item
        yield tuple(items)


async def call_after_stream(
    streamer: AsyncIterator[Any], callback: Callable[..., Any], *args: Any, **kwargs: Any
) -> AsyncIterator[Any]:
    """Yields the items of a stream, and calls a function after its end or its error."""
    try:
        async for item in streamer:
            yield item
    finally:
        callback(*args, **kwargs)


class ForkedPdb:
    """The debugger in workers; see :func:`set_trace`."""

    def set_trace(self, frame: FrameType | None = None) -> None:
        """Stops at the next line of a frame. Default: of the caller."""
        from litplex.compat._debugger import stop_at

        stop_at(sys._getframe(1) if frame is None else frame)


@contextlib.contextmanager
def wrap_litserve_start(server: LitServer, worker_monitor: bool = False) -> Iterator[LitServer]:
    """Serves ``server.app`` to test clients, such as ``fastapi.testclient.TestClient``, until the
    end of the context.

    Args:
        server: The server; its workers run until the end.
        worker_monitor: No effect: workers that end are always replaced.

    Raises:
        ValueError: names every error in the program.
        RuntimeError: litplex could not start; its output says why.
    """
    from litplex._apphost._attached import attached

    with attached(server):
        yield server


def set_trace() -> None:
    """Stops at the next line in the debugger ``pdb``, also in a worker.

    The debugger uses the terminal from which the server was started. Without one, it prints a
    message, and the program goes on. The deadline of the request does not stop: give the server a
    ``timeout`` that is long enough.
    """
    ForkedPdb().set_trace(_caller())


def _caller() -> FrameType:
    """Returns the frame that called into this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals is globals():
        frame = frame.f_back
    return frame


def set_trace_if_debug(
    debug_env_var: str = "LITSERVE_DEBUG", debug_env_var_value: str = "1"
) -> None:
    """Calls :func:`set_trace` if an environment variable has a value.

    Args:
        debug_env_var: The variable. Default: ``LITSERVE_DEBUG``.
        debug_env_var_value: The value. Default: ``1``.
    """
    if os.environ.get(debug_env_var) == debug_env_var_value:
        set_trace()


def _remember_terminal() -> None:
    # A server has a session of its own without a terminal. Its workers need the name of the
    # terminal from which it was started.
    for stream in range(3):
        with contextlib.suppress(OSError):
            os.environ.setdefault("LITPLEX_TERMINAL", os.ttyname(stream))


_remember_terminal()
