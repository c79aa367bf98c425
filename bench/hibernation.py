"""The time from a request to its answer for a model that is hot, that hibernates, and that is cold.

    python hibernation.py --megabytes 1024 --rounds 5

The `litplex` that is on the PATH serves. The machine needs as much free swap.
"""

import argparse
import http.client
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

MODEL = """
import os
import litplex as ls

class Model(ls.LitAPI):
    def __init__(self, megabytes):
        super().__init__()
        self.megabytes = megabytes

    def setup(self, device):
        # Random, so that no compression of swap helps.
        self.data = [os.urandom(1 << 20) for _ in range(self.megabytes)]

    def predict(self, x):
        # Every page is read.
        return sum(sum(block[::4096]) for block in self.data)
"""

PROGRAM = """
port = 0
[[endpoint]]
path = "/m"
api = "model.py:Model"
args = {{ megabytes = {megabytes} }}
min_workers = 0
max_workers = 1
keep_alive = "forever"
hibernate = true
"""


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Server:
    """A server of the model, whose files are in this directory."""

    def __init__(self, directory, megabytes):
        (directory / "model.py").write_text(MODEL)
        (directory / "litplex.toml").write_text(PROGRAM.format(megabytes=megabytes))
        self._log = directory / "log"
        with self._log.open("w") as log:
            command = ["litplex", "serve", directory / "litplex.toml"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait_until(lambda: "ready: all endpoints" in self._log.read_text())
        self.address = self._log.read_text().partition("listening on http://")[2].split()[0]
        self.port = self.address.rpartition(":")[2]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()

    def wait_until(self, condition):
        while not condition():
            if self._process.poll() is not None:
                raise SystemExit(self._log.read_text())
            time.sleep(0.05)

    def ask(self):
        """Sends a request; returns the seconds until its response, and the response."""
        begin = time.perf_counter()
        connection = http.client.HTTPConnection(self.address, timeout=600)
        connection.request("POST", "/m", "1", {"content-type": "application/json"})
        answer = connection.getresponse().read()
        return time.perf_counter() - begin, answer

    def scale(self, workers, tier):
        """Scales the endpoint, and waits until it has this tier; returns the seconds."""
        begin = time.perf_counter()
        run("litplex", "scale", "/m", workers, "--port", self.port)
        self.wait_until(lambda: self._status()["tier"] == tier)
        return time.perf_counter() - begin

    def _status(self):
        status = json.loads(run("litplex", "ps", "--port", self.port, "--json"))
        return status["endpoints"][0] if isinstance(status, dict) else status[0]["endpoints"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    times = {"cold": [], "hot": [], "hibernated": [], "to hibernate": []}
    with tempfile.TemporaryDirectory() as directory:
        with Server(pathlib.Path(directory), args.megabytes) as server:
            for _ in range(args.rounds):
                seconds, _ = server.ask()
                times["cold"].append(seconds)
                seconds, hot = server.ask()
                times["hot"].append(seconds)
                times["to hibernate"].append(server.scale("0", "hibernated"))
                seconds, woken = server.ask()
                times["hibernated"].append(seconds)
                assert woken == hot, "the answers differ"
                server.scale("cold", "cold")
    for name, seconds in times.items():
        shown = " ".join(f"{value:.2f}" for value in seconds)
        print(f"{name:13} median {statistics.median(seconds):6.3f} s  of {shown}")


if __name__ == "__main__":
    main()
