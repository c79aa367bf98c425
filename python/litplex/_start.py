"""A server that runs beside the program that started it: in a notebook, in a test."""

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
from typing import TYPE_CHECKING, Any

from litplex import _capture, _handover, _server
from litplex._apphost import _manifest

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from litplex.compat._keywords import RunOptions

# How often it is looked whether the server still runs while it starts.
_LOOK_SECONDS = 0.2
# The longest path of a Unix socket is 107 bytes.
_LONGEST_FOLDER = 90
_LINES_KEPT = 200


def start(
    *servers: _server.LitServer,
    host: str | None = None,
    port: int | None = None,
    ready_timeout: float | None = None,
    **options: Unpack[RunOptions],
) -> RunningServer:
    """Serves all endpoints of all servers on one socket, and returns when they are ready::

        with ls.start(ls.LitServer(EmbeddingAPI(), path="/embed"), port=0) as server:
            print(httpx.post(f"{server.url}/embed", json="some text").json())

    The server ends with this process at the latest. What it logs goes to ``sys.stderr``.

    Args:
        *servers: :class:`LitServer` instances; each keeps its own settings.
        host: The address to listen on. Default: ``127.0.0.1``, which only this machine reaches.
        port: The port; 0 takes a free one. Default: 8000.
        ready_timeout: Seconds that models may take to load. Default: as long as they need.
        **options: As of :func:`run_servers`.

    Raises:
        ValueError: names every error and says what to do, before any process starts.
        RuntimeError: the server ended before it was ready; has the reason.
        TimeoutError: it was not ready in time, and was stopped.
    """
    given, wants_client = _server.checked_options(servers, host, port, options)
    _capture.take(servers, given)
    program = _server.program_of(servers, given, _manifest.manifest_of(servers, given))
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


def _can_run_again(caller):
    """Returns whether a worker that runs the program again comes to this call, and first to it."""
    if _capture.started:
        return False
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    # A test runner, or the kernel of a notebook, is installed; the program of a user calls itself.
    return caller == "__main__" or not main or not _handover.is_installed(main)


class RunningServer:
    """A server that :func:`start` started; as a context manager it is stopped at the end.

    Attributes:
        url: Where it listens, such as ``http://127.0.0.1:8000``.
    """

    def __init__(self, servers):
        self.url = ""
        self._servers = servers
        self._child: Any = None
        self._log: Any = None
        self._has_ended = False

    def wait(self, timeout: float | None = None) -> int:
        """Waits until the server ends by itself, or in another thread by :meth:`stop`.

        Args:
            timeout: The most seconds to wait. Default: no limit.

        Returns:
            Its exit status, 0 where it ended as it should.

        Raises:
            TimeoutError: it still runs.
        """
        try:
            status = 0 if self._child is None else self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the server at {self.url} runs after {timeout} s") from None
        self._end()
        return status

    def stop(self) -> int:
        """Lets requests in flight finish within the option ``grace``, and ends the server.

        Returns:
            Its exit status, 0 where it ended as it should; also when it had ended before.
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

    def _start(self, program, timeout):
        with _Notices() as notices:
            environment = {"NOTIFY_SOCKET": notices.path}
            profile = _server.profile_of(self._servers)
            self._child = _server.start_binary(profile, environment, stderr=subprocess.PIPE)
            self._log = _Log(self._child.stderr)
            atexit.register(self.stop)
            _server.hand_over(program, self._child)
            give_up = None if timeout is None else time.monotonic() + timeout
            while not notices.are_ready():
                self._check_running()
                if give_up is not None and time.monotonic() > give_up:
                    raise TimeoutError(f"the server was not ready within {timeout} s")
            self.url = notices.url

    def _check_running(self):
        if self._child.poll() is not None:
            self._log.join()
            raise RuntimeError(
                f"the server ended with status {self._child.returncode} before it was ready: "
                f"{self._log.reason() or 'see what it printed'}"
            )

    def _end(self):
        if self._has_ended:
            return
        self._has_ended = True
        atexit.unregister(self.stop)
        if self._log is not None:
            self._log.join()
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
        _server.call_back(self._servers, "on_server_end")


class _Notices:
    """What the server says of itself, as services do to systemd."""

    def __init__(self):
        folder = tempfile.gettempdir()
        folder = folder if len(os.fsencode(folder)) < _LONGEST_FOLDER else "/tmp"
        self._folder = tempfile.mkdtemp(prefix="litplex-", dir=folder)
        self.path = os.path.join(self._folder, "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(_LOOK_SECONDS)
        self.url = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def are_ready(self):
        """Waits a moment for a notice; returns whether it says that all endpoints serve."""
        try:
            lines = self._socket.recv(4096).decode().splitlines()
        except socket.timeout:  # Python 3.9 has no other name for it.
            return False
        said = dict(line.partition("=")[::2] for line in lines)
        self.url = said.get("X_LITPLEX_URL", self.url)
        return said.get("READY") == "1"


class _Log:
    """Copies what the server prints to ``sys.stderr``: to a cell, or to what a test captures."""

    def __init__(self, pipe):
        self._pipe = pipe
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._thread = threading.Thread(target=self._copy, name="litplex-log", daemon=True)
        self._thread.start()

    def _copy(self):
        for line in self._pipe:
            text = line.decode(errors="replace")
            self._lines.append(text)
            # It may be closed, or None, by now.
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stderr.write(text)
                sys.stderr.flush()
        self._pipe.close()

    def join(self):
        """Waits for its end, which is the server's, unless what it left behind keeps it open."""
        self._thread.join(5)

    def reason(self):
        """Returns what it printed from the last error on; nothing where there is none."""
        lines = [*self._lines]
        errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        return "".join(lines[errors[-1] :])[len("error: ") :].rstrip() if errors else ""
