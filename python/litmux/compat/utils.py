"""What programs take from ``litserve.utils``: logging, debugging, names of states."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from litmux import HTTPException
from litmux.compat._missing import missing

if TYPE_CHECKING:
    from litmux import LitServer

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_logger = logging.getLogger("litserve")


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
    """An :class:`~litmux.HTTPException`; every one can be pickled."""

    @staticmethod
    def from_exception(exc: Any) -> PickleableHTTPException:
        """Returns one with the status and the detail of another."""
        return PickleableHTTPException(exc.status_code, exc.detail)


_OF_SPECS = "litmux owns the queues that a spec of one's own would read and fill"

__getattr__ = missing(
    __name__,
    {
        "ResponseBufferItem": _OF_SPECS,
        "azip": _OF_SPECS,
        "call_after_stream": _OF_SPECS,
        "dump_exception": "exceptions of hooks are sent as they are",
    },
)


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
        _logger.warning("`rich` is not installed, so logs are plain; `pip install rich`")


def _rich_handler():
    try:
        rich = importlib.import_module("rich.logging")
    except ImportError:
        return None
    return rich.RichHandler(rich_tracebacks=True, show_time=True, show_path=False)


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


@contextlib.contextmanager
def wrap_litserve_start(server: LitServer, worker_monitor: bool = False) -> Iterator[LitServer]:
    """Within it, ``server.app`` answers test clients, such as ``fastapi.testclient.TestClient``.

    Args:
        server: The server; its workers run until the end.
        worker_monitor: Changes nothing: workers that end are always replaced.

    Raises:
        ValueError: names every mistake in what is to be served.
        RuntimeError: litmux could not start; what it printed says why.
    """
    from litmux._apphost._attached import attached

    with attached(server):
        yield server


def set_trace() -> None:
    """Stops at the next line in the debugger ``pdb``, in a worker too.

    It talks to the terminal from which the server was started; where there is none it says so, and
    the program goes on. A request's time goes on while you look: give the server a ``timeout`` that
    is long enough.
    """
    from litmux.compat._debugger import stop_at

    stop_at(sys._getframe(1))


def set_trace_if_debug(
    debug_env_var: str = "LITSERVE_DEBUG", debug_env_var_value: str = "1"
) -> None:
    """Does what :func:`set_trace` does, where an environment variable has a value.

    Args:
        debug_env_var: The variable. Default: ``LITSERVE_DEBUG``.
        debug_env_var_value: The value. Default: ``1``.
    """
    if os.environ.get(debug_env_var) == debug_env_var_value:
        from litmux.compat._debugger import stop_at

        stop_at(sys._getframe(1))


def _remember_terminal():
    # A server is a session of its own, which no terminal controls: its workers do not get at the
    # one that it was started from, unless they are told its name.
    for stream in range(3):
        with contextlib.suppress(OSError):
            os.environ.setdefault("LITMUX_TERMINAL", os.ttyname(stream))


_remember_terminal()
