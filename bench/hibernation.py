"""The time from a request to its answer for a model that is hot, that hibernates, and that is cold.

    python hibernation.py --megabytes 1024 --rounds 5

The `litplex` that is on the PATH serves. The machine needs as much free swap.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

from one_endpoint import Server

MODEL = """
import os
import litplex as ls

class Model(ls.LitAPI):
    def setup(self, device):
        # Random, so that no compression of swap helps.
        self.data = [os.urandom(1 << 20) for _ in range({megabytes})]

    def predict(self, x):
        # Every page is read.
        return sum(sum(block[::4096]) for block in self.data)
"""

OPTIONS = {"min_workers": 0, "max_workers": 1, "keep_alive": "forever", "hibernate": True}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class HibernationServer(Server):
    """A server of a model with so many megabytes."""

    def __init__(self, directory, megabytes):
        super().__init__(directory, MODEL.format(megabytes=megabytes), OPTIONS)
        self.port = self.address.rpartition(":")[2]

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
        with HibernationServer(pathlib.Path(directory), args.megabytes) as server:
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
