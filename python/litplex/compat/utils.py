"""What programs take from ``litserve.utils``: logging, debugging, names of states."""

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
    "litserve.utils.generate_random_zmq_address", "workers are reached over sockets of their own"
)


class LitAPIStatus:
    """How far the answer to a request is."""

    START = "START"
    OK = "OK"
    ERROR = "ERROR"
    FINISH_STREAMING = "FINISH_STREAMING"


class LoopResponseType(enum.Enum):
    """How a loop answers: as it computes, or at the end."""

    STREAMING = "STREAMING"
    REGULAR = "REGULAR"


@dataclasses.dataclass
class WorkerSetupStatus:
    """How far a worker is."""

    STARTING: str = "starting"
    READY: str = "ready"
    ERROR: str = "error"
    FINISHED: str = "finished"


class PickleableHTTPException(HTTPException):
    """An :class:`~litplex.HTTPException`; every one can be pickled."""

    @staticmethod
    def from_exception(exc: Any) -> PickleableHTTPException:
        """Returns one with the status and the detail of another."""
        return PickleableHTTPException(exc.status_code, exc.detail)


_OF_SPECS = "litplex owns the queues that a spec of one's own would read and fill"

__getattr__ = missing(__name__, {"ResponseBufferItem": _OF_SPECS})


def configure_logging(
    level: str | int = logging.INFO,
    format: str = _LOG_FORMAT,
    stream: TextIO | None = None,
    use_rich: bool = False,
) -> None:
    """Sets what the logger ``litserve`` writes, and replaces its handlers.

    Args:
        level: The lowest level that is written, as a name or number. Default: INFO.
        format: The format of a line. Default: time, level, logger and message.
        stream: Where it is written. Default: standard output.
        use_rich: Whether the package ``rich`` formats it, where it is installed. Default: False.

    Raises:
        ValueError: there is no such level.
    """
    _logger.setLevel(level)
    handler = _rich_handler() if use_rich else None
    if handler is None:
        handler = logging.StreamHandler(sys.stdout if stream is None else stream)
        handler.setFormatter(logging.Formatter(format))
    _logger.handlers[:] = [handler]
    _logger.propagate = False
    if use_rich and isinstance(handler, logging.StreamHandler):
        _logger.warning(
            '`rich` is not installed, so logs are plain; `pip install "litplex[litserve]"`'
        )


class _AsOfLitserve(logging.Handler):
    """Passes on what modules of this package log to the logger that programs configure."""

    def emit(self, record):
        if _logger.isEnabledFor(record.levelno):
            _logger.handle(record)


def _pass_on():
    own = logging.getLogger("litplex.compat")
    own.setLevel(logging.DEBUG)
    own.propagate = False
    own.handlers[:] = [_AsOfLitserve()]


_pass_on()


def _rich_handler():
    try:
        import rich.logging
    except ImportError:
        return None
    return rich.logging.RichHandler(rich_tracebacks=True, show_time=True, show_path=False)


def set_log_level(level: str | int) -> None:
    """Sets the lowest level that is written.

    Raises:
        ValueError: there is no such level.
    """
    _logger.setLevel(level)


def add_log_handler(handler: logging.Handler) -> None:
    """Adds a handler to the logger ``litserve``."""
    _logger.addHandler(handler)


def is_package_installed(package_name: str) -> bool:
    """Tells whether a package or module can be imported, without doing so."""
    try:
        return importlib.util.find_spec(package_name) is not None
    except (ImportError, ValueError):
        return False


def dump_exception(exception: BaseException) -> bytes:
    """Returns the pickle of an exception."""
    return pickle.dumps(exception)


async def azip(*streams: AsyncIterator[Any]) -> AsyncIterator[tuple[Any, ...]]:
    """Yields tuples of one item of each stream, to the end of the shortest."""
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
    """Yields the items of a stream, and then, however it ends, calls a function."""
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
    """Within it, ``server.app`` answers test clients, such as ``fastapi.testclient.TestClient``.

    Args:
        server: The server; its workers run until the end.
        worker_monitor: Changes nothing: workers that end are always replaced.

    Raises:
        ValueError: names every error in what is to be served.
        RuntimeError: litplex could not start; what it printed says why.
    """
    from litplex._apphost._attached import attached

    with attached(server):
        yield server


def set_trace() -> None:
    """Stops at the next line in the debugger ``pdb``, in a worker too.

    It talks to the terminal from which the server was started; where there is none it says so, and
    the program goes on. A request's time goes on while you look: give the server a ``timeout`` that
    is long enough.
    """
    ForkedPdb().set_trace(_caller())


def _caller():
    """Returns the frame that called into this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals is globals():
        frame = frame.f_back
    return frame


def set_trace_if_debug(
    debug_env_var: str = "LITSERVE_DEBUG", debug_env_var_value: str = "1"
) -> None:
    """Does what :func:`set_trace` does, where an environment variable has a value.

    Args:
        debug_env_var: The variable. Default: ``LITSERVE_DEBUG``.
        debug_env_var_value: The value. Default: ``1``.
    """
    if os.environ.get(debug_env_var) == debug_env_var_value:
        set_trace()


def _remember_terminal():
    # A server is a session of its own, which no terminal controls: its workers do not get at the
    # one that it was started from, unless they are told its name.
    for stream in range(3):
        with contextlib.suppress(OSError):
            os.environ.setdefault("LITPLEX_TERMINAL", os.ttyname(stream))


_remember_terminal()
