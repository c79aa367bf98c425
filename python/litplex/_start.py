"""Servers that run beside the program that started them, as in a notebook or a test."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from litplex import _capture, _handover, _server
from litplex._apphost import _manifest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from litplex.compat._keywords import RunOptions

# The interval, in seconds, at which a starting server is checked.
_POLL_SECONDS = 0.2
# The path of a Unix socket has at most 107 bytes.
_MAX_FOLDER_BYTES = 90
_LINES_KEPT = 200


def start(
    *servers: _server.LitServer,
    host: str | None = None,
    port: int | None = None,
    ready_timeout: float | None = None,
    **options: Unpack[RunOptions],
) -> RunningServer:
    """Serves all endpoints of all servers on one socket; returns when they are ready::

        with ls.start(ls.LitServer(EmbeddingAPI(), path="/embed"), port=0) as server:
            print(httpx.post(f"{server.url}/embed", json="some text").json())

    The server ends with this process at the latest. Its log goes to ``sys.stderr``.

    Args:
        *servers: :class:`LitServer` instances; each keeps its own settings.
        host: The address to listen on. Default: ``127.0.0.1``, which only this machine reaches.
        port: The port; 0 takes a free one. Default: 8000.
        ready_timeout: The seconds that models may take to load. Default: None, no limit.
        **options: As of :func:`run_servers`.

    Raises:
        ValueError: names every error and what to do, before any process starts.
        RuntimeError: the server ended before it was ready; has the reason.
        TimeoutError: the server was not ready in time, and was stopped.
    """
    given, wants_client = _server.checked_options(servers, host, port, options)
    _capture.take(servers, given)
    program = _server.program_of(servers, given, _manifest.manifest_of(servers, given))
    # The rest of this program goes on beside the server: it is not run again for a reload.
    program["program"]["file"] = None
    if not _can_run_again(sys._getframe(1).f_globals.get("__name__")):
        _handover.forbid_running_again(program, servers)
    if wants_client and "generate_client_file" in options:
        _server.write_client(servers, given)
    _server.call_back(servers, "on_server_start")
    running = RunningServer(servers)
    _capture.started += 1
    try:
        running._start(program, ready_timeout)
    except BaseException:
        running.stop()
        raise
    return running


def _can_run_again(caller: str | None) -> bool:
    """Returns whether a worker that runs the program again reaches this call, before any other."""
    if _capture.started:
        return False
    main: str | None = getattr(sys.modules.get("__main__"), "__file__", None)
    # Test runners and the kernels of notebooks are installed; the program of a user is not.
    return caller == "__main__" or not main or not _handover.is_installed(main)


class RunningServer:
    """A server that :func:`start` started. As a context manager, it stops at the end.

    Attributes:
        url: The address of the server, such as ``http://127.0.0.1:8000``.
    """

    def __init__(self, servers: Sequence[_server.LitServer]) -> None:
        self.url = ""
        self._servers = servers
        self._child: subprocess.Popen[bytes] | None = None
        self._log: _Log | None = None
        self._has_ended = False

    def wait(self, timeout: float | None = None) -> int:
        """Waits until the server ends, by itself or by :meth:`stop` in another thread.

        Args:
            timeout: The most seconds to wait. Default: None, no limit.

        Returns:
            The exit status; 0 if the server ended without an error.

        Raises:
            TimeoutError: the server still runs.
        """
        try:
            status = 0 if self._child is None else self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the server at {self.url} runs after {timeout} s") from None
        self._end()
        return status

    def stop(self) -> int:
        """Ends the server, after its requests in flight have finished or ``grace`` has passed.

        Returns:
            The exit status; 0 if the server ended without an error. It may have ended before.
        """
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.terminate()
        return self.wait()

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        is_running = self._child is not None and self._child.poll() is None
        return f"<litplex server at {self.url}, {'running' if is_running else 'ended'}>"

    def _start(self, program: dict[str, Any], timeout: float | None) -> None:
        with _Notices() as notices:
            environment = {"NOTIFY_SOCKET": notices.path}
            profile = _server.profile_of(self._servers)
            self._child = _server.start_binary(profile, environment, stderr=subprocess.PIPE)
            self._log = _Log(self._child)
            atexit.register(self.stop)
            _server.hand_over(program, self._child)
            give_up = None if timeout is None else time.monotonic() + timeout
            while not notices.are_ready():
                _check_running(self._child, self._log)
                if give_up is not None and time.monotonic() > give_up:
                    raise TimeoutError(f"the server was not ready within {timeout} s")
            self.url = notices.url

    def _end(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        atexit.unregister(self.stop)
        if self._log is not None:
            self._log.join()
        if self._child is not None and self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
        _server.call_back(self._servers, "on_server_end")


def _check_running(child: subprocess.Popen[bytes], log: _Log) -> None:
    if child.poll() is not None:
        log.join()
        raise RuntimeError(
            f"the server ended with status {child.returncode} before it was ready: "
            f"{log.reason() or 'its output says why'}"
        )


class _Notices:
    """The notices of the server about its state, in the protocol of systemd's services."""

    def __init__(self) -> None:
        folder = tempfile.gettempdir()
        folder = folder if len(os.fsencode(folder)) < _MAX_FOLDER_BYTES else "/tmp"
        self._folder = tempfile.mkdtemp(prefix="litplex-", dir=folder)
        self.path = os.path.join(self._folder, "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(_POLL_SECONDS)
        self.url = ""

    def __enter__(self) -> _Notices:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def are_ready(self) -> bool:
        """Waits a moment for a notice; returns whether it reports that all endpoints serve."""
        try:
            lines = self._socket.recv(4096).decode().splitlines()
        except socket.timeout:  # In Python 3.9, this is not TimeoutError.
            return False
        said = dict(line.partition("=")[::2] for line in lines)
        self.url = said.get("X_LITPLEX_URL", self.url)
        return said.get("READY") == "1"


class _Log:
    """Copies the output of the server to ``sys.stderr``, which a notebook or a test may capture."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stderr is not None
        self._pipe = child.stderr
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._thread = threading.Thread(target=self._copy, name="litplex-log", daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        for line in self._pipe:
            text = line.decode(errors="replace")
            self._lines.append(text)
            # The program may have closed it, or set it to None.
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stderr.write(text)
                sys.stderr.flush()
        self._pipe.close()

    def join(self) -> None:
        """Waits for the end of the output. A process that the server left behind may keep it
        open."""
        self._thread.join(5)

    def reason(self) -> str:
        """Returns the output from the last error on; an empty text without an error."""
        lines = [*self._lines]
        errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        return "".join(lines[errors[-1] :])[len("error: ") :].rstrip() if errors else ""
