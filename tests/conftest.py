"""Runs real programs on the installed wheel, each on a port of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

# Far more than anything takes on a slow machine; nothing here is about speed.
PATIENCE = 30.0

LITMUX = Path(sys.executable).with_name("litmux")

PRELUDE = "import litmux as ls\n"


class Program:
    """A running program and what it printed so far."""

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
        """Returns the match of the first line that has it; fails when the program ends first."""
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
        self._output.close()


class Server(Program):
    """A program that serves, and a client for it."""

    client: Any = None

    def wait_until_listening(self):
        self.url = self.wait_for_line(r"listening on (http://\S+)")[1]
        if self.client is None:
            self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)
        return self

    def wait_until_ready(self):
        self.wait_until_listening()
        self.wait_for_line("ready: all endpoints")
        return self

    def post(self, path, **request):
        return self.client.post(path, **request)

    def workers(self):
        """Returns the process ids of the workers."""
        return [pid for pid in descendants(self.process.pid) if "_worker" in command_of(pid)]

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


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def run(tmp_path):
    """Starts commands in a directory of the test's own, and ends them with it."""
    running = []

    def start(command, *, kind=Program, env=None):
        program = kind([str(part) for part in command], tmp_path, env)
        running.append(program)
        return program

    yield start
    seen = {pid for program in running for pid in descendants(program.process.pid)}
    for program in running:
        program.kill()
    wait_until(lambda: not any(map(is_alive, seen)))


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
