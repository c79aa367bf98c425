"""The template: a process that has imported modules, and from which workers are forked.

The server starts it like a worker, with a Unix socket as its standard input and an order that has a
``template``: the ``modules`` to import, in order, each with its ``name`` and, if that is known, its
``file``; the ``path`` that comes first in their search; the ``cpu_affinity``; and the ``server``'s
process id. Both sides then send objects in JSON, each on a line.
``crates/workers/src/process/template_process.rs`` is the other side.

``{"unimported": {"module", "reason"}}``
    The import of a module raised. The template goes on without it.
``{"unfit": {"module", "reason"}}``
    Another file has the name of a module, or its import left something that two processes cannot
    share: the template ends, and the server starts one without the module.
``{"ready": {"modules", "seconds"}}``
    The modules are imported.
``{"fork": {"env"}}``, from the server, with the standard streams of a worker (``SCM_RIGHTS``)
    Answered with ``{"cannot": {"reason"}}``, with ``{"stale": {"path"}}`` where files have changed
    since the imports, or with ``{"forked": {"pid"}}``. The server then lists the process as its own
    and sends an empty line, and ``{"adopted": {}}`` says that it is the server's child.

The worker is a grandchild of the template: its parent exits, so that the server, which is a
subreaper, becomes its parent as that of any worker.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from litplex._launched.sources import modules_of_files
from litplex._launched.tracebacks import summary_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

# More than any message has.
_MESSAGE_BYTES = 1 << 20

# The seconds that a fork may take which only lets libraries end their threads.
_TRIAL = 5.0

# Files that processes may share.
_HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")

_PR_SET_PDEATHSIG = 1


def become_worker(order: dict[str, Any], stdin: BinaryIO) -> bool:
    """Imports the modules of an order, and forks a worker off whenever the server asks for one.

    Returns:
        True in a forked worker, which has the standard streams and the environment variables that
        the server chose. False in the template itself, once the server has closed its connection.
    """
    with stdin:
        server = socket.socket(fileno=os.dup(stdin.fileno()))
    template = _Template(order["template"], server)
    return template.import_modules() and template.fork_on_request()


class _Template:
    def __init__(self, wanted: dict[str, Any], server: socket.socket) -> None:
        # Loaded before the modules, whose checks it must pass, and once for all workers.
        import ctypes

        self._prctl = ctypes.CDLL(None, use_errno=True).prctl
        self._wanted = wanted
        self._server = server
        self._known = _open_files()
        self._seen: dict[str, int] = {}

    def import_modules(self) -> bool:
        """Imports all modules and tells the server. Returns whether workers may be forked."""
        # No collection walks, and so copies, what all workers share.
        gc.disable()
        begin = time.monotonic()
        directory, mask = os.getcwd(), os.umask(0)
        os.umask(mask)
        path = self._wanted["path"]
        sys.path[:0] = path
        if self._wanted["cpu_affinity"]:
            # Refused cores are the error of each worker.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._wanted["cpu_affinity"])
        # What most workers import before they serve.
        importlib.import_module("litplex._worker.loops.loop")
        imported = []
        for module in self._wanted["modules"]:
            name, file, reason = module["name"], module["file"], None
            try:
                found = importlib.import_module(name)
            except BaseException as error:  # noqa: BLE001  (whatever a module raises)
                self._say("unimported", module=name, reason=summary_of(error))
            else:
                imported.append(name)
                if file not in (None, found.__spec__ and found.__spec__.origin):
                    reason = f"it is another one than {file}"
            reason = reason or self._why_no_fork()
            if reason is not None:
                self._say("unfit", module=name, reason=reason)
                return False
        for entry in path:
            # A module may have removed it.
            with contextlib.suppress(ValueError):
                sys.path.remove(entry)
        os.chdir(directory)
        os.umask(mask)
        self._seen = _times_of_files()
        gc.freeze()
        self._say("ready", modules=imported, seconds=time.monotonic() - begin)
        return True

    def fork_on_request(self) -> bool:
        """Returns True in each worker that the server asks for, and False once it asks for no
        more."""
        while True:
            asked, streams = self._receive()
            if asked is None:
                return False
            try:
                stale, reason = self._changed_file(), self._why_no_fork(streams)
                if stale is not None:
                    self._say("stale", path=stale)
                elif reason is not None:
                    self._say("cannot", reason=reason)
                elif self._fork(asked["fork"], streams):
                    return True
            finally:
                for stream in streams:
                    os.close(stream)

    def _fork(self, asked: dict[str, Any], streams: Sequence[int]) -> bool:
        """Forks a worker, and returns True in it."""
        try:
            between = os.fork()
        except OSError as error:
            self._say("cannot", reason=f"the system refuses a process: {error}")
            return False
        if between != 0:
            os.waitpid(between, 0)
            self._say("adopted")
            return False
        parent = os.getpid()
        try:
            worker = os.fork()
        except BaseException:  # noqa: BLE001  (nothing of the template may run here)
            os._exit(1)
        if worker != 0:
            self._give_to_server(worker)
        self._begin(asked, streams, parent)
        return True

    def _give_to_server(self, worker: int) -> None:
        """Ends this process, the worker's parent, once the server has listed the worker."""
        try:
            with contextlib.suppress(OSError):
                # Here, too: the server ends the group as soon as it knows the worker.
                os.setpgid(worker, worker)
            self._say("forked", pid=worker)
            self._server.recv(1)
        finally:
            os._exit(0)

    def _begin(self, asked: dict[str, Any], streams: Sequence[int], parent: int) -> None:
        """Makes a worker of this process, as if the server had started it."""
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        self._server.close()
        while os.getppid() == parent:
            time.sleep(0.0002)
        # As `child.rs` does it between fork and exec: the kernel kills it with its server.
        failed = self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if failed or os.getppid() != self._wanted["server"]:
            os._exit(1)
        for name, value in asked["env"].items():
            os.environ[name] = value
        _seed_again()
        gc.enable()

    def _why_no_fork(self, streams: Sequence[int] = ()) -> str | None:
        """Returns why a process that is forked off now would not be like one that was started."""
        if _threads() > 1:
            _let_threads_end()
        threads = _threads()
        if threads > 1:
            return f"{threads - 1} further thread{'s run' if threads > 2 else ' runs'} in it"
        if _children():
            return "it has started a process"
        torch: Any = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized():
            return "it uses a GPU"
        file = self._file_that_is_open(streams)
        if file is not None:
            # A number changes each time, and the server logs each reason once.
            return f"it has opened {file.partition(':[')[0]}"
        return _shared_memory()

    def _file_that_is_open(self, streams: Sequence[int]) -> str | None:
        """Returns a file or socket that the modules have opened, not these streams: a process that
        is forked would share its position, its messages or its device."""
        fresh = _open_files().items() - self._known.items()
        opened = (file for number, file in fresh if int(number) not in streams)
        return next((file for file in opened if file not in _HARMLESS), None)

    def _changed_file(self) -> str | None:
        """Returns a file that has changed since the modules were imported, or a directory of
        packages in which some were installed or removed."""
        now = _times_of_files()
        return next((path for path, time in self._seen.items() if now.get(path) != time), None)

    def _say(self, kind: str, **message: Any) -> None:
        self._server.sendall(json.dumps({kind: message}).encode() + b"\n")

    def _receive(self) -> tuple[Any, Sequence[int]]:
        """Returns the next message of the server and its files; None for its end."""
        text, streams = b"", []
        while not text.endswith(b"\n"):
            piece, more, _, _ = socket.recv_fds(self._server, _MESSAGE_BYTES, 3)
            streams += more
            if not piece:
                return None, streams
            text += piece
        return json.loads(text), streams


def _open_files() -> dict[str, str]:
    """Returns the open files of this process by their numbers."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        # Not the one of the list itself.
        with contextlib.suppress(OSError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def _threads() -> int:
    # Not `threading.active_count()`, which does not know those of native libraries.
    return len(os.listdir("/proc/self/task"))


def _children() -> str:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return file.read()
    except OSError:  # The kernel does not say.
        return ""


def _let_threads_end() -> None:
    """Forks off a process that ends at once. Libraries such as OpenBLAS, which starts its threads
    when NumPy is imported, end them before a fork (``pthread_atfork``) and start others when they
    next compute. Threads of others stay."""
    with warnings.catch_warnings():
        # Python 3.12 warns of any thread.
        warnings.simplefilter("ignore")
        trial = os.fork()
    if trial == 0:
        os._exit(0)
    deadline = time.monotonic() + _TRIAL
    while os.waitpid(trial, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(trial, signal.SIGKILL)
        time.sleep(0.0002)


def _shared_memory() -> str | None:
    """Returns why memory forbids a fork: pages to which this process and others may write, such as
    those of the semaphores of ``multiprocessing`` and those of devices."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            if fields[1] == "rw-s":
                return f"it shares memory ({fields[5].strip() if len(fields) > 5 else 'unnamed'})"
    return None


def _times_of_files() -> dict[str, int]:
    """Returns the times of the last changes of the user's files that are loaded, and of the
    directories in which packages are installed."""
    packages = (path for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    found = {}
    for path in (*packages, *modules_of_files()):
        try:
            found[path] = os.stat(path).st_mtime_ns
        except OSError:
            found[path] = 0
    return found


def _seed_again() -> None:
    """Seeds the random numbers that would be those of all workers. Python does so itself for
    ``random``; PyTorch's are the same in each process that does not seed them."""
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
