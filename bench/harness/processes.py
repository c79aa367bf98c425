"""Processes: the server under test, and the CPU time and memory of its whole process tree."""

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import NamedTuple

from . import paths

TICK = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36
CLIENTS = set()  # pids of our load generators

# Daemons that a server double-forks remain descendants, to be counted and stopped.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Stat(NamedTuple):
    ppid: int
    cpu_s: float
    state: str
    threads: int


def stat(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            text = f.read()
        fields = text[text.rindex(")") + 2 :].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / TICK
        return Stat(int(fields[1]), cpu_s, fields[0], int(fields[17]))
    except (OSError, ValueError):
        return None


def tree():
    """Every living descendant of this harness that is not a load generator, as {pid: Stat}."""
    pids = (int(p) for p in os.listdir("/proc") if p.isdigit())
    stats = {pid: s for pid in pids if (s := stat(pid))}
    children = {}
    for pid, s in stats.items():
        children.setdefault(s.ppid, []).append(pid)
    found, todo = {}, list(children.get(os.getpid(), []))
    while todo:
        pid = todo.pop()
        if pid in CLIENTS:
            continue
        if stats[pid].state != "Z":
            found[pid] = stats[pid]
        todo += children.get(pid, [])
    return found


def memory_mb(pids, field="VmRSS"):
    """The sum over the processes of a field of /proc/PID/status, or of their Pss."""
    name = "smaps_rollup" if field == "Pss" else "status"
    total_kb = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/{name}") as f:
                total_kb += sum(int(line.split()[1]) for line in f if line.startswith(field + ":"))
        except OSError:
            pass
    return round(total_kb / 1024, 1)


def box_cpu():
    """CPU seconds since boot: (used by anything on the box, stolen from it)."""
    with open("/proc/stat") as f:
        ticks = [int(x) for x in f.readline().split()[1:]]
    user_nice_system, irq, softirq, steal = sum(ticks[:3]), ticks[5], ticks[6], ticks[7]
    return (user_nice_system + irq + softirq) / TICK, steal / TICK


def children_cpu():
    """CPU seconds of the children of this harness that have ended and been waited for."""
    times = os.times()
    return times.children_user + times.children_system


def own_cpu():
    """CPU seconds of this harness and of its children that have ended and been waited for."""
    return sum(os.times()[:4])


class Cpu:
    """CPU seconds of the server tree, of the load generators and of the box, start to stop.

    The load generators must have ended when stop() is called, and the server must not have.
    """

    def __init__(self):
        self.tree0, self.box0, self.children0 = tree(), box_cpu(), children_cpu()
        self.start = time.monotonic()

    def stop(self):
        now, box = tree(), box_cpu()
        before = {pid: s.cpu_s for pid, s in self.tree0.items()}
        self.server = sum(s.cpu_s - before.get(pid, 0) for pid, s in now.items())
        self.wall = time.monotonic() - self.start
        self.client = children_cpu() - self.children0
        self.box, self.steal = box[0] - self.box0[0], box[1] - self.box0[1]
        return self

    def cores(self):
        """The CPU use of the server, the client and the rest of the box, in cores."""
        other = max(0, self.box - self.server - self.client)
        return {
            "server_cores": round(self.server / self.wall, 2),
            "client_cores": round(self.client / self.wall, 2),
            "other_cores": round(other / self.wall, 2),
            "steal_cores": round(self.steal / self.wall, 2),
        }


def wait_for_quiet(limit_s):
    """Waits, at most `limit_s`, until the box uses under 0.15 cores over 1 s; returns the wait."""
    start = time.monotonic()
    while True:
        cpu = Cpu()
        time.sleep(1)
        cpu.stop()
        waited = time.monotonic() - start
        if cpu.box / cpu.wall < 0.15 or waited > limit_s:
            return round(waited - 1, 1)


def system_conf(system):
    try:
        return json.loads((paths.SYSTEMS / system / "system.json").read_text())
    except FileNotFoundError:
        return {}


def path_of(system, workload):
    return system_conf(system).get("path") or ("/fast" if workload == "w4" else "/predict")


def free_port():
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)):
                return port


def reap():
    """Waits for every child that has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class Server:
    """A system's server on one workload, started on creation and stopped with its process tree.

    `env` are further variables of its environment, and `cores` the only ones that it uses.
    """

    def __init__(self, system, workload, env=None, cores=None):
        self.system, self.workload, self.port = system, workload, free_port()
        self.path = path_of(system, workload)
        self.dir = tempfile.mkdtemp(prefix="litplex-bench-")
        paths.LOGS.mkdir(parents=True, exist_ok=True)
        self.log = open(paths.LOGS / f"{system}-{workload}.log", "w")  # noqa: SIM115
        pin = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [*pin, paths.SYSTEMS / system / "start", workload, str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            cwd=self.dir,
            env=self._env() | (env or {}),
            start_new_session=True,
        )

    @staticmethod
    def _env():
        ours = ("PYTHON", "BENCH_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        bench = {"BENCH_HOME": str(paths.HOME), "BENCH_MODEL": str(paths.MODEL)}
        return env | bench | {"HF_HUB_OFFLINE": "1"}

    def wait_until_ready(self, check, limit_s=90):
        """Sends requests until a response is correct; sets `ready_s`, counted from the start."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if not self.alive():
                code = self.process.returncode
                raise RuntimeError(f"server exited {code}: see {self.log.name}")
            good = check.one()
            if good:
                self.ready_s = time.monotonic() - self.start
            check.close()
            if good:
                return
            time.sleep(0.005)
        raise RuntimeError(f"not ready in {limit_s} s ({check.last}): see {self.log.name}")

    def alive(self):
        return self.process.poll() is None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.alive():
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(6)
        for sig, pause_s in ((signal.SIGTERM, 3), (signal.SIGKILL, 2)):
            self._stop_rest(sig, pause_s)
        self._reap()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _stop_rest(self, sig, pause_s):
        """Signals the remaining processes of the tree and waits `pause_s` for their end."""
        left = tree()
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, sig)
        end = time.monotonic() + pause_s
        while left and time.monotonic() < end:
            time.sleep(0.05)
            self._reap()
            left = tree()

    def _reap(self):
        self.process.poll()
        reap()
