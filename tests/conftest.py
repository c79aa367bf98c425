"""Fixtures that run real programs on the installed wheel, each on its own port."""

import contextlib
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from glob import glob
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_server import FakeServer

# Far more time than any step takes on a slow machine; no test measures speed.
PATIENCE = 30.0

# Servers that tests start inherit ignored signals, and respect that. Under `nohup`, and in a job
# that a script starts in the background, some of these are ignored.
for _signal in (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(
            _signal,
            signal.default_int_handler if _signal is signal.SIGINT else signal.SIG_DFL,
        )

# These files import packages that the locks do not have for Python 3.9.
collect_ignore = (
    []
    if importlib.util.find_spec("fastapi")
    else [
        "e2e/test_attached.py",
        "unit/test_app_host.py",
        "unit/test_apphost_middleware.py",
        "unit/test_json.py",
    ]
)

#: The start of a program whose hooks write lines to a file, which the fixture `notes` reads, and
#: wait for files.
NOTES = """
    import os, time

    def note(text):
        with open("notes", "a") as file:
            file.write(text + "\\n")

    def wait_for(path):
        deadline = time.monotonic() + 20
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.005)
"""

LITPLEX = Path(sys.executable).with_name("litplex")

PRELUDE = "import litplex as ls\n"


class Ledger:
    """The record of every request sent with httpx and its outcome: exactly one for each."""

    def __init__(self):
        self.open: dict[int, str] = {}
        self.sent = 0
        self.outcomes: Counter[str] = Counter()
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def enter(self, request):
        with self._lock:
            self.sent += 1
            number = next(self._numbers)
            self.open[number] = f"{request.method} {request.url}"
        return number

    def end(self, number, outcome):
        """Records the outcome; closing a response that has ended already changes nothing."""
        with self._lock:
            if self.open.pop(number, None):
                self.outcomes[outcome] += 1

    def end_with(self, number, error):
        self.end(number, "hung" if isinstance(error, httpx.TimeoutException) else "broken")

    @property
    def hung(self):
        return self.outcomes["hung"]

    def __str__(self):
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items())
        return f"{self.sent} requests: {outcomes or 'none ended'}"


LEDGER = Ledger()


class RecordedStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a response, which reports its outcome to the ledger."""

    def __init__(self, stream, number):
        self._stream = stream
        self._number = number

    def __iter__(self):
        try:
            yield from self._stream
        except Exception as error:
            LEDGER.end_with(self._number, error)
            raise
        LEDGER.end(self._number, "answered")

    async def __aiter__(self):
        try:
            async for piece in self._stream:
                yield piece
        except Exception as error:
            LEDGER.end_with(self._number, error)
            raise
        LEDGER.end(self._number, "answered")

    def close(self):
        self._stream.close()
        LEDGER.end(self._number, "left by the client")

    async def aclose(self):
        await self._stream.aclose()
        LEDGER.end(self._number, "left by the client")


def recorded(send):
    def handle_request(transport, request):
        number = LEDGER.enter(request)
        try:
            response = send(transport, request)
        except BaseException as error:
            LEDGER.end_with(number, error)
            raise
        response.stream = RecordedStream(response.stream, number)
        return response

    return handle_request


def recorded_async(send):
    async def handle_async_request(transport, request):
        number = LEDGER.enter(request)
        try:
            response = await send(transport, request)
        except BaseException as error:
            LEDGER.end_with(number, error)
            raise
        response.stream = RecordedStream(response.stream, number)
        return response

    return handle_async_request


@pytest.fixture(scope="session", autouse=True)
def recording():
    """Records every request of any client in the ledger."""
    sync, asynchronous = httpx.HTTPTransport, httpx.AsyncHTTPTransport
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync, "handle_request", recorded(sync.handle_request))
        send = recorded_async(asynchronous.handle_async_request)
        patch.setattr(asynchronous, "handle_async_request", send)
        yield
    assert LEDGER.sent == sum(LEDGER.outcomes.values()), str(LEDGER)


@pytest.fixture(autouse=True)
def every_request_ends(recording):
    """Checks, after the servers of the test have ended, that each request has one outcome."""
    hung = LEDGER.hung
    yield
    try:
        wait_until(lambda: not LEDGER.open, lambda: f"never ended: {[*LEDGER.open.values()]}")
    finally:
        LEDGER.open.clear()
    assert LEDGER.hung == hung, "a request was neither answered nor broken off in time"


def pytest_sessionfinish(session):
    """Passes the ledger on when several processes share the tests."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["ledger"] = (LEDGER.sent, dict(LEDGER.outcomes))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    # A process that crashed has none; the crash is reported elsewhere.
    sent, outcomes = getattr(node, "workeroutput", {}).get("ledger", (0, {}))
    LEDGER.sent += sent
    LEDGER.outcomes.update(outcomes)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"ledger: {LEDGER}")


class Program:
    """A running program and its output so far."""

    def __init__(self, command, directory, env=None):
        self.lines = []
        self._grown = threading.Condition()
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._output: Any = self.process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._output:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()
        with self._grown:
            self.process.wait()
            self._grown.notify_all()

    @property
    def output(self):
        return "\n".join(self.lines)

    def wait_for_line(self, pattern):
        """Returns the match of the first matching line; fails when the program ends first."""
        deadline = time.monotonic() + PATIENCE
        with self._grown:
            while True:
                for line in self.lines:
                    match = re.search(pattern, line)
                    if match:
                        return match
                if not self._reader.is_alive() or time.monotonic() > deadline:
                    raise AssertionError(f"no line has {pattern!r}:\n{self.output}")
                self._grown.wait(0.1)

    def wait(self):
        """Returns the exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self._reader.join(PATIENCE)
        # Closing a pipe that another thread reads would never return.
        assert not self._reader.is_alive(), "a process that it started outlives it"
        self._output.close()


class Server(Program):
    """A program that serves, and a client for it."""

    client: Any = None

    def wait_until_listening(self):
        self.url = self.wait_for_line(r"listening on (https?://\S+)")[1]
        if self.client is None:
            self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)
        return self

    def wait_until_ready(self):
        self.wait_until_listening()
        self.wait_for_line("ready: all endpoints")
        return self

    def post(self, path, **request):
        return self.client.post(path, **request)

    def wait_for_request(self, path):
        """Waits until one request for an endpoint is in flight."""
        line = f'litplex_inflight_requests{{endpoint="{path}"}} 1'
        wait_until(lambda: line in self.client.get("/metrics").text.splitlines())

    def workers(self):
        """Returns the process ids of the workers."""
        return [pid for pid in descendants(self.process.pid) if "_worker" in command_of(pid)]

    def app_hosts(self):
        """Returns the process ids of the app hosts: one, or none."""
        return [pid for pid in descendants(self.process.pid) if "_apphost" in command_of(pid)]

    def kill(self):
        if self.client is not None:
            self.client.close()
        super().kill()


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def descendants(pid):
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += [int(child) for child in task.read_text().split()]
    return children + [each for child in children for each in descendants(child)]


def stat_of(pid):
    """Returns the state and the parent of a process."""
    state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    return state, int(parent)


def parent_of(pid):
    return stat_of(pid)[1]


def is_alive(pid):
    try:
        return stat_of(pid)[0] != "Z"
    except OSError:
        return False


def wait_until(condition, says=lambda: "it did not happen in time"):
    """Waits until a function returns something that is true, and returns that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, says()
        time.sleep(0.01)
    return found


def pytest_collection_modifyitems(items):
    reason = why_no_gpu()
    for item in items if reason else ():
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


def why_no_gpu():
    """Returns the reason why tests that need a GPU cannot run here; None if they can."""
    if not glob("/proc/driver/nvidia/gpus/*"):
        return "needs an NVIDIA GPU, and this machine shows none"
    if importlib.util.find_spec("torch") is None:
        return "needs PyTorch beside the tests; install it with CUDA"
    return None


@pytest.fixture
def run(tmp_path, runtime):
    """Starts commands in the directory of the test, and ends them with it.

    They end before `runtime` is removed, in which servers have files as long as they run.
    """
    running = []

    def start(command, *, kind=Program, env=None):
        program = kind([str(part) for part in command], tmp_path, env)
        running.append(program)
        return program

    yield start
    seen = {pid for program in running for pid in descendants(program.process.pid)}
    try:
        for program in running:
            program.kill()
        wait_until(lambda: not any(map(is_alive, seen)))
    finally:
        for pid in [*filter(is_alive, seen)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def worker(tmp_path):
    """Starts the worker process of a model, without a server; it is ended with the test."""
    started = []

    def start(model, args=None, **setup):
        started.append(FakeServer(tmp_path, model, args, **setup))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def notes(tmp_path):
    """Returns the lines that the hooks of a program with `NOTES` have written so far."""

    def read():
        path = tmp_path / "notes"
        return path.read_text().splitlines() if path.exists() else []

    return read


@pytest.fixture
def runtime():
    """An environment in which no other server is found, with a path short enough for sockets."""
    directory = tempfile.mkdtemp(prefix="lm", dir="/tmp")
    yield {"XDG_RUNTIME_DIR": directory, "TMPDIR": directory}
    shutil.rmtree(directory)


@pytest.fixture
def litplex(runtime):
    """Runs the command; returns its exit status, its output and its errors."""

    def run(*args, env=None):
        done = subprocess.run(
            [LITPLEX, *args],
            env={**os.environ, **runtime, **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def endpoint_of(litplex):
    """Returns the status of an endpoint in `litplex ps`, given its path."""

    def ask(path):
        status, out, err = litplex("ps", "--json")
        assert status == 0, err
        return next(e for e in json.loads(out)["endpoints"] if e["path"] == path)

    return ask


@pytest.fixture
def script(tmp_path):
    """Writes a Python file into the test's directory."""

    def write(text, name="server.py"):
        path = tmp_path / name
        path.write_text(PRELUDE + textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def serve(run, script):
    """Runs the text of a program that serves; returns when it is ready."""

    def start(text, *, env=None, ready=True):
        server = run([sys.executable, script(text)], kind=Server, env=env)
        return server.wait_until_ready() if ready else server

    return start
