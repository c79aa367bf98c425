"""The cost of a worker's imports, with and without a template: time and memory.

    python templates.py --python VENV/bin/python torch

`cold`: the seconds from a request to the response of an endpoint that sleeps. `memory`: the sum of
the proportional set sizes (PSS) of one worker, and of four, with their template. The `litplex` that
is on the PATH serves.
"""

import argparse
import concurrent.futures
import http.client
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

MODEL = """
import litplex as ls
{imports}

class Model(ls.LitAPI):
    def predict(self, x):
        return x
"""


class Server:
    """A server of one endpoint whose model imports the modules.

    Args:
        args: The arguments of the program.
        directory: Where its files are written.
        options: Further options of the endpoint, by name.
    """

    def __init__(self, args, directory, options):
        imports = "\n".join(f"import {module}" for module in args.modules)
        (directory / "model.py").write_text(MODEL.format(imports=imports))
        endpoint = {"path": "/m", "api": "model.py:Model", "python": args.python, **options}
        lines = [f"{name} = {json.dumps(value)}" for name, value in endpoint.items()]
        (directory / "litplex.toml").write_text("\n".join(["port = 0", "[[endpoint]]", *lines]))
        self._log = directory / "log"
        with self._log.open("w") as log:
            command = ["litplex", "serve", directory / "litplex.toml"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait_until(lambda: "ready: all endpoints" in self._log.read_text())
        text = self._log.read_text()
        self.address = text.partition("listening on http://")[2].split()[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()

    def wait_until(self, condition):
        """Waits until a function returns something that is true."""
        while not condition():
            if self._process.poll() is not None:
                raise SystemExit(self._log.read_text())
            time.sleep(0.05)

    def ask(self):
        """Sends a request; returns the seconds until its response."""
        begin = time.perf_counter()
        connection = http.client.HTTPConnection(self.address, timeout=120)
        connection.request("POST", "/m", "1", {"content-type": "application/json"})
        assert connection.getresponse().read() == b"1"
        return time.perf_counter() - begin

    def processes(self):
        """Returns the process ids of workers and templates."""
        tasks = pathlib.Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [pid for task in tasks for pid in task.read_text().split()]

    def memory(self):
        """Returns the proportional set sizes of all processes together, in MB."""
        texts = [pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.processes()]
        return sum(int(text.partition("\nPss:")[2].split()[0]) for text in texts) * 1.024e-3


def cold(args, directory, preload):
    """Returns the seconds from a request to its response, each time that the endpoint sleeps."""
    options = {"min_workers": 0, "max_workers": 1, "keep_alive": 1, "preload": preload}
    with Server(args, directory, options) as server:
        # The first worker is started, or waits for the template.
        server.ask()
        seconds = []
        for _ in range(args.rounds):
            server.wait_until(lambda: len(server.processes()) == bool(preload))
            time.sleep(1)
            seconds.append(server.ask())
    return seconds


def memory(args, directory, preload, workers):
    """Returns the memory of so many workers that have answered requests, in MB."""
    with Server(args, directory, {"workers_per_device": workers, "preload": preload}) as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: server.ask(), range(64)))
        return server.memory()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="+", help="the modules that the model imports")
    parser.add_argument("--python", required=True, help="an interpreter that has them")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(
        "| template | cold, s | (all) | one worker, MB | four workers, MB |\n|---|---|---|---|---|"
    )
    for name, preload in (("no", []), ("yes", args.modules)):
        with tempfile.TemporaryDirectory() as text:
            directory = pathlib.Path(text)
            seconds = cold(args, directory, preload)
            each = " ".join(f"{it:.2f}" for it in seconds)
            sizes = [memory(args, directory, preload, workers) for workers in (1, 4)]
            print(f"| {name} | {statistics.median(seconds):.2f} | {each} ", end="")
            print(f"| {sizes[0]:.0f} | {sizes[1]:.0f} |", flush=True)


main()
