"""A litplex program under test, with its figures from /proc and `litplex ps`."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

HOME = Path(os.environ.get("BENCH_HOME") or "~/.cache/litplex-bench").expanduser()
BIN = Path(os.environ.get("LITPLEX_VENV") or HOME / "venvs" / "litplex").absolute() / "bin"
PATIENCE_S = 60


class Usage(NamedTuple):
    """The resources of the server's own process."""

    rss_mb: float
    fds: int
    threads: int


class Server:
    """A program that serves on a free port; ended, with its workers, when the block ends.

    With `reload` it is served for development. `starting_s` is the time from listening to ready,
    which is what its slowest worker took.
    """

    def __init__(self, text, files=(), reload=False):
        self.folder = Path(tempfile.mkdtemp(prefix="litplex-stress-"))
        for name, content in dict(files).items():
            (self.folder / name).write_text(content)
        program = self.folder / "server.py"
        program.write_text("import litplex as ls\n" + textwrap.dedent(text))
        self.log = self.folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [BIN / "litplex", "serve", "--reload", program]
                if reload
                else [BIN / "python", program],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def __aenter__(self):
        try:
            self.port = int((await self._line(r"listening on http://[^:]+:(\d+)"))[1])
            listening = time.monotonic()
            await self._line("ready: all endpoints")
            self.starting_s = time.monotonic() - listening
            self.pid = self._binary()
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(self, *_):
        self._end()

    def _end(self):
        pids = [self.process.pid, *descendants(self.process.pid)]
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        for pid in pids:
            with contextlib.suppress(OSError):
                if "litplex" in command(pid):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _line(self, pattern):
        """Waits until the program has printed the text."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            printed = self.log.read_text(errors="replace")
            if match := re.search(pattern, printed):
                return match
            if self.process.poll() is not None:
                sys.exit(f"the server ended:\n{printed}")
            await asyncio.sleep(0.005)
        sys.exit(f"the server did not print {pattern!r} in {PATIENCE_S} s:\n{printed}")

    def _binary(self):
        """The process that owns the sockets: the program itself only hands over to it."""
        pids = [self.process.pid, *descendants(self.process.pid)]
        return next(pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "litplex\n")

    def workers(self):
        return [pid for pid in descendants(self.pid) if "_worker" in command(pid)]

    def usage(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        rss_kb = re.search(r"VmRSS:\s+(\d+)", status)[1]
        threads = re.search(r"Threads:\s+(\d+)", status)[1]
        fds = len(os.listdir(f"/proc/{self.pid}/fd"))
        return Usage(round(int(rss_kb) / 1024, 1), fds, int(threads))

    async def endpoints(self):
        """The status of each endpoint by path, from `litplex ps`; None without that command."""
        process = await asyncio.create_subprocess_exec(
            BIN / "litplex", "ps", "--json", "--port", str(self.port),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        out, _ = await process.communicate()
        if process.returncode:
            return None
        return {endpoint["path"]: endpoint for endpoint in json.loads(out)["endpoints"]}

    def printed(self, text):
        """The number of times that the program has printed the text."""
        return self.log.read_text(errors="replace").count(text)


def command(pid):
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
