"""A fast endpoint beside a saturated slow one on the same cores: latency and throughput, each relative to that alone.

Two servers are asked in turn, in several rounds: `turns`, whose endpoints have a `device_weight`, and
`kernel`, in which no worker is interrupted, so that the kernel alone divides the cores.
The fast model takes 5 ms of CPU time; one client sends a request, waits for the response and then for
`--think` seconds. The slow model computes for `--slow` seconds of CPU time, by two workers or by one with
two threads, and as many clients keep it busy.
"""

import argparse
import hashlib
import http.client
import statistics
import subprocess
import sys
import threading
import time

import litplex as ls

FAST = 0.005
#: The options of the endpoints, by the name of the server.
SERVERS = {"turns": {"device_weight": 1}, "kernel": {}}
#: The workers of the slow endpoint and the threads of each.
SHAPES = {"two workers": (2, 1), "two threads": (1, 2)}


def burn(seconds):
    """Computes for so much CPU time of this thread. The interpreter is left for most of it."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 1000)


class Fast(ls.LitAPI):
    def predict(self, x):
        burn(FAST)
        return {}


class Slow(ls.LitAPI):
    def __init__(self, seconds, threads):
        super().__init__()
        self.seconds, self.number = seconds, threads

    def predict(self, x):
        threads = [threading.Thread(target=burn, args=(self.seconds,)) for _ in range(self.number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {}


def serve(name, shape, slow, port):
    workers, threads = SHAPES[shape]
    ls.run_servers(
        ls.LitServer(Fast(), path="/fast", accelerator="cpu", threads=1, **SERVERS[name]),
        ls.LitServer(
            Slow(float(slow), threads),
            path="/slow",
            accelerator="cpu",
            workers_per_device=workers,
            threads=threads,
            timeout=300,
            **SERVERS[name],
        ),
        port=int(port),
        log_level="warning",
    )


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port)

    def request(self, method, path):
        body = b"{}" if method == "POST" else None
        self.connection.request(method, path, body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        response.read()
        return response.status


class Server:
    def __init__(self, name, shape, slow, port):
        arguments = ["--serve", name, shape, str(slow), str(port)]
        self.port = port
        self.process = subprocess.Popen([sys.executable, __file__, *arguments])

    def wait(self):
        while self.process.poll() is None:
            try:
                if Client(self.port).request("GET", "/readyz") == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit("a server ended")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def load(server, fast, slow, seconds, think):
    """Returns the times of the fast requests in ms, and the slow requests in a second."""
    end, times, done = time.monotonic() + seconds, [], []

    def ask_slow():
        client = Client(server.port)
        while time.monotonic() < end:
            begun = time.monotonic()
            client.request("POST", "/slow")
            took = time.monotonic() - begun
            # The part of the last request that is in the time.
            done.append(min(1.0, (end - begun) / took))

    threads = [threading.Thread(target=ask_slow) for _ in range(slow)]
    for thread in threads:
        thread.start()
    client = Client(server.port)
    time.sleep(0.3)
    while fast and time.monotonic() < end:
        begun = time.perf_counter()
        client.request("POST", "/fast")
        times.append(1000 * (time.perf_counter() - begun))
        time.sleep(think)
    for thread in threads:
        thread.join()
    return times, sum(done) / seconds


def percentile(times, part):
    return sorted(times)[int(len(times) * part)]


def measure(shape, args):
    servers = {
        name: Server(name, shape, args.slow, args.port + at) for at, name in enumerate(SERVERS)
    }
    clients = SHAPES[shape][0]
    seen = {name: [] for name in SERVERS}
    try:
        for server in servers.values():
            server.wait()
            load(server, True, clients, 1, args.think)
        for _ in range(args.rounds):
            for name, server in servers.items():
                alone = load(server, True, 0, args.seconds, args.think)[0]
                slow_alone = load(server, False, clients, args.seconds, args.think)[1]
                both, slow = load(server, True, clients, args.seconds, args.think)
                row = [percentile(alone, 0.5), percentile(alone, 0.99), slow_alone]
                row += [percentile(both, 0.5), percentile(both, 0.99), slow]
                seen[name].append(row)
    finally:
        for server in servers.values():
            server.stop()
    for name, rows in seen.items():
        middle = [statistics.median(row[at] for row in rows) for at in range(6)]
        ratios = [statistics.median(row[at + 3] / row[at] for row in rows) for at in range(3)]
        cells = "{0:.2f} / {1:.2f} | {2:.2f} | {3:.2f} / {4:.2f} | {5:.2f}".format(*middle)
        compared = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {shape} | {args.think * 1000:g} | {name} | {cells} | {compared} |", flush=True)
    base, other = seen["kernel"], seen["turns"]
    names = ("fast p50", "fast p99", "slow rate")
    ratios = [statistics.median(b[at] / a[at] for a, b in zip(base, other)) for at in range(3)]
    shown = ", ".join(f"{name} {ratio:.3f}" for name, ratio in zip(names, ratios))
    print(f"alone, turns / kernel: {shown}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default=",".join(SHAPES), help=", ".join(SHAPES))
    parser.add_argument("--slow", type=float, default=0.5, help="CPU seconds of a slow request")
    parser.add_argument("--think", type=float, default=0.02, help="seconds between fast requests")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of each load")
    parser.add_argument("--port", type=int, default=8310)
    args = parser.parse_args()
    print(
        "| slow model | think, ms | server | fast alone, p50 / p99 ms | slow alone, /s "
        "| fast beside it, p50 / p99 ms | slow beside it, /s | p50, p99 and slow rate relative to alone |||"
    )
    print("|---" * 10 + "|", flush=True)
    for shape in args.shapes.split(","):
        measure(shape, args)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
