"""The cost of a worker's imports, with and without a template: time and memory.

    python templates.py --python VENV/bin/python torch

`cold`: the seconds from a request to the response of an endpoint that sleeps. `memory`: the sum of
the proportional set sizes (PSS) of one worker, and of four, with their template. The `litplex` that
is on the PATH serves.
"""

import argparse
import concurrent.futures
import pathlib
import statistics
import tempfile
import time

from one_endpoint import Server

MODEL = """
import litplex as ls
{imports}

class Model(ls.LitAPI):
    def predict(self, x):
        return x
"""


class TemplateServer(Server):
    """A server whose model imports the modules."""

    def __init__(self, args, directory, options):
        imports = "\n".join(f"import {module}" for module in args.modules)
        options = {"python": args.python, **options}
        super().__init__(directory, MODEL.format(imports=imports), options)

    def ask(self):
        """Sends a request; returns the seconds until its response."""
        seconds, answer = super().ask()
        assert answer == b"1"
        return seconds

    def processes(self):
        """Returns the process ids of workers and templates."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [pid for task in tasks for pid in task.read_text().split()]

    def memory(self):
        """Returns the proportional set sizes of all processes together, in MB."""
        texts = [pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.processes()]
        return sum(int(text.partition("\nPss:")[2].split()[0]) for text in texts) * 1.024e-3


def cold(args, directory, preload):
    """Returns the seconds from a request to its response, each time that the endpoint sleeps."""
    options = {"min_workers": 0, "max_workers": 1, "keep_alive": 1, "preload": preload}
    with TemplateServer(args, directory, options) as server:
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
    with TemplateServer(
        args, directory, {"workers_per_device": workers, "preload": preload}
    ) as server:
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
