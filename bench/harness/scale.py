"""litplex on more cores: its curve over cores, or the contention of its threads where there are few.

The curve has as many workers as cores, and the client on cores of its own. With too few cores for a
curve, the number of threads and workers grows on the same cores instead: what a request takes of
CPU, futex calls and context switches says whether they wait for each other.
"""

import json
import os
import signal
import statistics
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from . import load
from .checks import Check
from .processes import Server, tree, wait_for_quiet
from .report import markdown, number

SYSTEM = "litplex"
CORES = (1, 2, 4, 8, 16)
# The HTTP threads and workers whose contention is measured, in pairs.
POINTS = [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (2, 4), (2, 16), (16, 16)]
# So that an HTTP thread has as many connections at each point.
CONNECTIONS = {"w1": 32, "w2": 128}
STREAMS = 16
EVENTS = {
    "syscalls": "raw_syscalls:sys_enter",
    "futex": "syscalls:sys_enter_futex",
    "instructions": "instructions",
}
UNITS = {"w1": "req/s", "w2": "req/s", "w3": "tokens/s"}


def client_cores(server_cores):
    """Returns the number of cores that a client needs to load that many of litplex."""
    return max(1, server_cores // 2)


def fitting(available):
    return [n for n in CORES if n + client_cores(n) <= available]


def threads(pids):
    """{(pid, thread): (role, CPU seconds, voluntary switches, forced ones)} of the processes.

    The roles are the server's thread that schedules ("core"), those for HTTP, and all others.
    """
    found = {}
    for pid in pids:
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    name = (task / "comm").read_text().strip()
                    role = {"litplex": "core", "http": "http"}.get(name.split("-")[0], "other")
                    nanos = int((task / "schedstat").read_text().split()[0])
                    lines = (task / "status").read_text().splitlines()
                    switches = [int(line.split()[1]) for line in lines if "ctxt_switches" in line]
                    found[pid, task.name] = role, nanos / 1e9, *switches
    return found


class Counters:
    """A measurement of the server while a load runs: events of perf, context switches and CPU time."""

    def __init__(self):
        self.pids = list(tree())
        events = ",".join(EVENTS.values())
        pids = ",".join(map(str, self.pids))
        self.perf = load.spawn(["perf", "stat", "-x;", "-e", events, "-p", pids])
        time.sleep(0.5)  # until perf watches all threads
        self.before = threads(self.pids)

    def per(self, count):
        """Returns the figures of one of `count` requests or tokens."""
        after = threads(self.pids)
        self.perf.send_signal(signal.SIGINT)
        totals = dict.fromkeys(("core", "http", "other", "voluntary", "forced"), 0)
        for key, (role, cpu_s, voluntary, forced) in after.items():
            _, cpu_s0, voluntary0, forced0 = self.before.get(key, (role, 0, 0, 0))
            totals[role] += (cpu_s - cpu_s0) * 1e6
            totals["voluntary"] += voluntary - voluntary0
            totals["forced"] += forced - forced0
        totals |= self._events(load.finish(self.perf, 10)[1])
        return {key: round(value / count, 3) for key, value in totals.items()}

    @staticmethod
    def _events(lines):
        """The counts by name; an event that this machine does not count is left out."""
        counts = {}
        for line in lines.splitlines():
            words = line.split(";")
            for name, event in EVENTS.items():
                if len(words) > 2 and words[2].startswith(event) and words[0].isdigit():
                    counts[name] = int(words[0])
        return counts


def requests(server, each, secs, clients):
    """Requests over `each` connections of each client; returns the rate and the count."""
    runs = [load.wrk_start(server, each, secs) for _ in range(clients)]
    results = [load.wrk_end(run, secs) for run in runs]
    return sum(r["rps"] for r in results), sum(r["requests"] for r in results)


def streams(server, each, secs, clients):
    """Streams of 1,000 tokens, `each` at a time from each client; returns the rate and the count."""
    rates, count, end = [], 0, time.monotonic() + secs
    while not rates or time.monotonic() < end:
        options = {"clients": each, "chunks": 1000}
        runs = [load.loadgen_start(server, "stream", **options) for _ in range(clients)]
        results = [load.loadgen_end(run) for run in runs]
        if any(r["wrong"] or r["errors"] for r in results):
            raise RuntimeError(f"wrong streams: {results}")
        rates.append(sum(r["tokens_s"] for r in results))
        count += sum(r["tokens"] for r in results)
    return statistics.median(rates), count


def measure(workload, threads, workers, secs, clients=1, cores=None):
    """The figures of one launch; `threads` is None for the server's own choice of HTTP threads."""
    env = {"BENCH_WORKERS": str(workers)}
    if threads:
        env["BENCH_HTTP_THREADS"] = str(threads)
    loads = streams if workload == "w3" else requests
    each = CONNECTIONS.get(workload, STREAMS) * max(2, threads or 2)
    with Server(SYSTEM, workload, env=env, cores=cores) as server:
        server.wait_until_ready(Check(server))
        loads(server, each, 1, clients)
        counters = Counters()
        rate, count = loads(server, each, secs, clients)
        return {"rate": round(rate), **counters.per(max(1, count))}


def medians(rounds):
    """{point: figures of each round} -> {point: medians}"""
    return {
        point: {key: statistics.median(r[key] for r in results) for key in results[0]}
        for point, results in rounds.items()
    }


@contextmanager
def pinned(cores):
    """Keeps this harness, and with it the load generators that it starts, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def curve(workload, sizes, rounds, secs):
    """{cores: medians}; the server on the first cores, the client on the last."""
    cores, results = sorted(os.sched_getaffinity(0)), {n: [] for n in sizes}
    for _ in range(rounds):
        for n in sizes:
            clients = client_cores(n)
            with pinned(cores[-clients:]):
                figures = measure(workload, None, n, secs, clients, cores[:n])
            results[n].append(figures)
            progress(workload, n, figures)
    return medians(results)


def contention(workload, rounds, secs):
    """{(HTTP threads, workers): medians}, all on the cores that there are."""
    results = {point: [] for point in POINTS}
    for _ in range(rounds):
        for threads, workers in POINTS:
            figures = measure(workload, threads, workers, secs)
            results[threads, workers].append(figures)
            progress(workload, f"{threads} threads, {workers} workers", figures)
    return medians(results)


def progress(workload, point, figures):
    print(json.dumps({"workload": workload, "at": point, **figures}), file=sys.stderr, flush=True)


def cells(figures):
    keys = (
        "rate",
        "core",
        "http",
        "other",
        "syscalls",
        "futex",
        "voluntary",
        "forced",
        "instructions",
    )
    return [number(float(figures[key])) if key in figures else "not counted" for key in keys]


def heads(workload):
    one = "token" if workload == "w3" else "request"
    return [
        UNITS[workload],
        f"µs of CPU a {one}: core",
        "HTTP",
        "workers and others",
        "system calls",
        "of futex",
        "switches, voluntary",
        "forced",
        "instructions",
    ]


def print_curve(workload, points):
    first = min(points)
    rows = [
        [n, *cells(figures), number(figures["rate"] / points[first]["rate"])]
        for n, figures in points.items()
    ]
    title = f"### {workload}: cores of the server, a worker on each; the client on cores of its own"
    header = ["cores", *heads(workload), f"x {first} core"]
    print(f"{title}\n\n{markdown(header, rows)}\n", flush=True)


def print_contention(workload, points):
    rows = [[*point, *cells(figures)] for point, figures in points.items()]
    title = f"### {workload}: contention on {len(os.sched_getaffinity(0))} cores"
    header = ["HTTP threads", "workers", *heads(workload)]
    print(f"{title}\n\n{markdown(header, rows)}\n", flush=True)


def run(args, scale):
    sizes = fitting(len(os.sched_getaffinity(0)))
    wait_for_quiet(scale.quiet_s)
    for workload in args.workloads:
        if len(sizes) > 1:
            print_curve(workload, curve(workload, sizes, args.rounds, scale.secs))
        else:
            print_contention(workload, contention(workload, args.rounds, scale.secs))
