"""More models than fit, with real processes: loads, waits, memory, and what others notice.

Six endpoints with models of 0.2 to 1.5 GB that take 0.3 to 3 s to load share a budget with room
for about three of them. Requests come at random times for a model by Zipf's law; `--shift` turns
the order of the models around in the middle. A seventh endpoint stays in memory, and one client
asks it all the time.

Printed as JSON: the seconds of loading, as measured and by the declared times, and those of LRU and
of the exact offline optimum on the same requests (both simulated without waits, with the declared
memory and times); the answers and their times; the most memory of all workers together, sampled
every `--sample` seconds (pages of their own, without files that they map); and the p99 of the
endpoint that stays, while models load and otherwise. Its client is a process of its own with one
connection, so that it waits for no thread of the others; when models loaded is read from the log.

Usage: python residency.py [--seconds 1200] [--rate 0.5] [--zipf 0.9] [--shift]; litplex must be
installed for this Python.
"""

import argparse
import http.client
import json
import multiprocessing
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

MEGABYTES = [200, 300, 500, 700, 1000, 1500]
SECONDS = [0.3, 0.6, 0.9, 1.5, 2.0, 3.0]
BUDGET = "2600MB"
PATHS = [f"/m{number}" for number in range(len(MEGABYTES))]
PAGE = 4096
NEEDS = [size + 35 for size in MEGABYTES]


def serve(port):
    import litplex as ls

    class Model(ls.LitAPI):
        def __init__(self, megabytes, seconds):
            super().__init__()
            self.megabytes, self.seconds = megabytes, seconds

        def setup(self, device):
            end = time.monotonic() + self.seconds
            self.data = bytearray(b"x") * (self.megabytes << 20)
            time.sleep(max(0, end - time.monotonic()))

        def predict(self, x):
            time.sleep(0.01)
            return x

    class Stays(ls.LitAPI):
        def predict(self, x):
            return x

    models = zip(PATHS, MEGABYTES, SECONDS, strict=True)
    ls.run_servers(
        ls.LitServer(Stays(), path="/stays"),
        *[
            ls.LitServer(
                Model(size, load),
                path=path,
                min_workers=0,
                max_workers=1,
                keep_alive="auto",
                timeout=120,
                memory=f"{size + 40}MB",
            )
            for path, size, load in models
        ],
        port=port,
        memory_budget=BUDGET,
    )


def post(port, path, timeout=150):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    begin = time.monotonic()
    connection.request("POST", path, b"1", {"Content-Type": "application/json"})
    status = connection.getresponse()
    status.read()
    connection.close()
    return status.status, time.monotonic() - begin


def ask_what_stays(port, ends, found):
    """Asks the endpoint that stays every 10 ms: puts the begin and the seconds of each answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=150)
    asked = []
    while not ends.wait(0.01) and multiprocessing.parent_process().is_alive():
        begin, at = time.monotonic(), time.time()
        connection.request("POST", "/stays", b"1", {"Content-Type": "application/json"})
        connection.getresponse().read()
        asked.append((at, time.monotonic() - begin))
    found.put(asked)


def metrics(port, name):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = re.findall(rf'^{name}{{endpoint="([^"]+)"}} (\S+)$', text, re.M)
    return {endpoint: float(value) for endpoint, value in found}


def workers(pid):
    """Returns the process ids of the workers below a process."""
    found, left = [], [pid]
    while left:
        parent = left.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(child) for child in task.read_text().split()]
            except OSError:
                continue
            left += children
            found += children
    return [each for each in found if "_worker" in command(each)]


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def resident(pid):
    try:
        _, all_pages, mapped, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(all_pages) - int(mapped)) * PAGE
    except (OSError, ValueError):
        return 0


class Sampler(threading.Thread):
    """The memory of all workers over time."""

    def __init__(self, pid, every):
        super().__init__(daemon=True)
        self.pid, self.every, self.most, self.ends = pid, every, 0, threading.Event()

    def run(self):
        known, at = [], 0.0
        while not self.ends.wait(self.every):
            if time.monotonic() - at > 0.1:
                known, at = workers(self.pid), time.monotonic()
            self.most = max(self.most, sum(map(resident, known)))


class Log(threading.Thread):
    """The lines that the server writes, and the times in which it loaded models."""

    LINE = re.compile(r"(\S+Z) +INFO /m\d#0: ready after ([\d.]+) s")

    def __init__(self, lines):
        super().__init__(daemon=True)
        self.lines, self.loads = lines, []

    def run(self):
        for line in self.lines:
            ready = self.LINE.match(line)
            if ready:
                until = datetime.fromisoformat(ready[1].replace("Z", "+00:00")).timestamp()
                self.loads.append((until - float(ready[2]), until))


def trace(args):
    """Returns the instants of the requests and their models."""
    chance = random.Random(args.seed)
    weights = [1 / (rank + 1) ** args.zipf for rank in range(len(PATHS))]
    order = list(range(len(PATHS)))
    chance.shuffle(order)
    now, found = 0.0, []
    while (now := now + chance.expovariate(args.rate)) < args.seconds:
        rank = chance.choices(range(len(PATHS)), weights)[0]
        turned = args.shift and now > args.seconds / 2
        found.append((now, order[len(order) - 1 - rank if turned else rank]))
    return found


def lru_seconds(requests, budget):
    """Returns the seconds that LRU loads, without waits."""
    there, seconds = OrderedDict(), 0.0
    for _, model in requests:
        if model in there:
            there.move_to_end(model)
            continue
        size = NEEDS[model]
        while there and sum(there.values()) + size > budget:
            there.popitem(last=False)
        there[model] = size
        seconds += SECONDS[model]
    return seconds


def optimum_seconds(requests, budget):
    """Returns the least seconds of loading, by dynamic programming over the sets in memory."""
    sets = range(1 << len(PATHS))
    needs = [sum(need for bit, need in enumerate(NEEDS) if has >> bit & 1) for has in sets]
    # The seconds so far, by the models in memory. What is not needed leaves with the next load.
    least = {0: 0.0}
    for _, model in requests:
        bit, reached = 1 << model, {}
        for has, seconds in least.items():
            if has & bit:
                reached[has] = min(seconds, reached.get(has, seconds))
                continue
            for kept in sets:
                after = kept | bit
                if kept & ~has == 0 and needs[after] <= budget:
                    then = seconds + SECONDS[model]
                    reached[after] = min(then, reached.get(after, then))
        least = reached
    return min(least.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--zipf", type=float, default=0.9)
    parser.add_argument("--shift", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=float, default=0.01)
    parser.add_argument("--port", type=int, default=8330)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.port)
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--port", str(args.port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if post(args.port, "/stays")[0] == 200:
                    break
            except OSError:
                assert time.monotonic() < deadline, "the server does not serve"
            time.sleep(0.05)
        print(json.dumps(measure(args, server)))
    finally:
        server.terminate()
        server.wait()


def measure(args, server):
    requests, seen = trace(args), []
    log = Log(server.stdout)
    log.start()
    ends, found = multiprocessing.Event(), multiprocessing.Queue()
    asker = multiprocessing.Process(target=ask_what_stays, args=(args.port, ends, found))
    asker.start()
    sampler = Sampler(server.pid, args.sample)
    sampler.start()

    begin = time.monotonic()
    with ThreadPoolExecutor(200) as pool:
        for at, model in requests:
            time.sleep(max(0, begin + at - time.monotonic()))
            seen.append(pool.submit(post, args.port, PATHS[model]))
    answers = [each.result() for each in seen]
    ends.set()
    sampler.ends.set()
    stays = sort_by_loading(found.get(timeout=150), log.loads)
    asker.join()
    waits = sorted(took for _, took in answers)
    quantile = lambda values, share: values[min(len(values) - 1, int(share * len(values)))]  # noqa: E731
    loads = metrics(args.port, "litplex_worker_loads_total")
    seconds = sum(
        value
        for path, value in metrics(args.port, "litplex_worker_load_seconds_total").items()
        if path in PATHS
    )
    declared = sum(loads[path] * load for path, load in zip(PATHS, SECONDS, strict=True))
    lru, optimum = (simulate(requests, 2600 - 40) for simulate in (lru_seconds, optimum_seconds))
    return {
        "requests": len(requests),
        "answers": Counter(status for status, _ in answers),
        "loads": {path: loads[path] for path in PATHS},
        "load_seconds": round(seconds, 1),
        "declared_load_seconds": round(declared, 1),
        "declared_load_seconds_of_lru": round(lru, 1),
        "declared_load_seconds_of_optimum": round(optimum, 1),
        "relative_to_lru": round(declared / lru, 3),
        "relative_to_optimum": round(declared / optimum, 3),
        "optimum_relative_to_lru": round(optimum / lru, 3),
        "wait_mean": round(statistics.fmean(waits), 3),
        "wait_p99": round(quantile(waits, 0.99), 3),
        "most_memory_mb": round(sampler.most / 1e6),
        "budget": BUDGET,
        "stays_p99_ms": {
            name: round(quantile(values, 0.99) * 1e3, 2) for name, values in stays.items() if values
        },
        "stays_requests": {name: len(values) for name, values in stays.items()},
    }


def sort_by_loading(asked, loads):
    """Returns the times of the answers while nothing loaded and while something did, sorted."""
    found = {"quiet": [], "loading": []}
    for begin, took in asked:
        is_loading = any(since < begin + took and begin < until for since, until in loads)
        found["loading" if is_loading else "quiet"].append(took)
    return {name: sorted(values) for name, values in found.items()}


if __name__ == "__main__":
    main()
