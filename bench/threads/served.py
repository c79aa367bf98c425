"""The cost of sharing cores: models of a server of five endpoints, one at a time and four at the same time.

Three servers are asked in turn, in several rounds: `alone` has only the model that is asked, with all
cores; `five` has five endpoints without options; `fixed` the same with the share of each as its
`threads`. A client for each endpoint that is asked sends one request after the other.
"""

import argparse
import http.client
import statistics
import subprocess
import sys
import threading
import time

import litplex as ls
from measure import CORES, SHARE
from models import MODELS

FIVE = ("llama", "ocr", "onnxruntime", "numpy", "llama2")
#: The endpoints of each load.
LOADS = {
    "llama": ("llama",),
    "ocr": ("ocr",),
    "four": ("llama", "ocr", "onnxruntime", "llama2"),
}


class Model(ls.LitAPI):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def setup(self, device):
        # ONNX Runtime chooses without a number, as most authors leave it.
        told = self.threads if self.name.startswith(("llama", "numpy")) else 0
        self.call = MODELS[self.name.rstrip("2")](told)
        self.call()

    def predict(self, x):
        self.call()
        return {}


def serve(names, threads, port):
    options = {"threads": int(threads)} if int(threads) else {}
    servers = [ls.LitServer(Model(name), path=f"/{name}", **options) for name in names.split(",")]
    ls.run_servers(*servers, port=int(port), log_level="warning")


class Server:
    def __init__(self, names, threads, port):
        arguments = ["--serve", ",".join(names), str(threads), str(port)]
        self.port = port
        self.process = subprocess.Popen([sys.executable, __file__, *arguments])

    def wait(self):
        while self.process.poll() is None:
            try:
                if self.request("GET", "/readyz") == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit("a server ended")

    def request(self, method, path, connection=None):
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port)
        body = b"{}" if method == "POST" else None
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status

    def stop(self):
        self.process.terminate()
        self.process.wait()


def rates(server, names, seconds):
    """Returns the requests in a second that each endpoint answers."""
    answered = dict.fromkeys(names, 0.0)

    def ask(name):
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        begin, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - begin) < seconds:
            if server.request("POST", f"/{name}", connection) != 200:
                raise SystemExit(f"/{name} failed")
            count += 1
        answered[name] = count / elapsed

    clients = [threading.Thread(target=ask, args=(name,)) for name in names]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return answered


def measure(load, rounds, seconds, port):
    names = LOADS[load]
    servers = {"five": Server(FIVE, 0, port), "fixed": Server(FIVE, SHARE, port + 1)}
    if len(names) == 1:
        servers["alone"] = Server(names, CORES, port + 2)
    try:
        for server in servers.values():
            server.wait()
        return [
            {name: rates(server, names, seconds) for name, server in servers.items()}
            for _ in range(rounds)
        ]
    finally:
        for server in servers.values():
            server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loads", nargs="*", default=list(LOADS), help=", ".join(LOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--port", type=int, default=8750)
    args = parser.parse_args()
    print(f"{CORES} cores; requests in a second, medians of {args.rounds} rounds")
    for load in args.loads:
        measured = measure(load, args.rounds, args.seconds, args.port)
        for name in LOADS[load]:
            cells = [
                f"{server} {statistics.median(it[server][name] for it in measured):.2f}"
                for server in measured[0]
            ]
            against = "alone" if "alone" in measured[0] else "fixed"
            ratio = statistics.median(it["five"][name] / it[against][name] for it in measured)
            said = f"{load}: /{name}: {', '.join(cells)}; five / {against} {ratio:.2f}"
            print(said, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
