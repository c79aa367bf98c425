"""A random worker is killed every 2 s at 70 % load: no idempotent request fails."""

import asyncio
import functools
import os
import random
import signal
import time

from . import http1, report
from .process import Server

# Path to the seconds of a request; two workers each.
ENDPOINTS = {"/quick": 0.005, "/middle": 0.02, "/slow": 0.1}
LOAD = 0.7
LIMIT_S = 31  # one more than the server's own timeout

PROGRAM = f"""
    import time

    class Square(ls.LitAPI):
        def __init__(self, seconds):
            super().__init__()
            self.seconds = seconds
        def predict(self, x):
            time.sleep(self.seconds)
            return x * x

    if __name__ == "__main__":
        ls.run_servers(
            *(
                ls.LitServer(Square(seconds), path=path, workers_per_device=2, accelerator="cpu")
                for path, seconds in {ENDPOINTS!r}.items()
            ),
            port=0,
        )
"""


async def run(args):
    seconds = 16 if args.quick else 120
    tallies = {path: http1.Tally() for path in ENDPOINTS}
    back = []
    async with Server(PROGRAM) as server:
        async with http1.beside(kill(server, back)):
            await asyncio.gather(*(load(server.port, p, seconds, t) for p, t in tallies.items()))
        alive = len(server.workers())
    lines = [line for path, tally in tallies.items() for line in tally.lines(path)]
    return [
        *lines,
        report.figure("kills", len(back)),
        report.figure("another process is there after, s, median", report.percentile(back, 0.5)),
        report.figure("another process is there after, s, longest", report.percentile(back, 1)),
        report.figure("workers at the end", alive),
        report.at_most("failed", sum(t.failed for t in tallies.values()), 0),
        report.at_most("hung", sum(t.outcomes["hung"] for t in tallies.values()), 0),
    ]


async def load(port, path, seconds, tally):
    rate = LOAD * 2 / ENDPOINTS[path]
    caller = http1.Client(port)

    async def call(number, due):
        right = str(number * number).encode().__eq__
        await caller.call(tally, path, number, right, LIMIT_S, due)

    await http1.open_loop(rate, seconds, call)
    caller.close()


async def kill(server, back):
    """Kills a worker every 2 s, and records the time until there are as many as before."""
    wanted = len(server.workers())
    while True:
        start = time.monotonic()
        if workers := server.workers():
            victim = random.choice(workers)
            os.kill(victim, signal.SIGKILL)
            is_replaced = functools.partial(replaced, server, victim, wanted)
            back.append(await http1.wait_until(is_replaced, 1.9) or float("inf"))
        await asyncio.sleep(max(0, start + 2 - time.monotonic()))


async def replaced(server, victim, wanted):
    workers = server.workers()
    return victim not in workers and len(workers) >= wanted
