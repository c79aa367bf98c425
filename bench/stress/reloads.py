"""Endpoints are reloaded one after another under 300 requests/s, with 20 streams open."""

import asyncio
import json
import os
import subprocess
import time

from . import http1, report
from .process import BIN, Server

PROGRAM = """
    import os, time

    # A new number for each process, as a new version of the code would have.
    VERSION = os.getpid()

    class Double(ls.LitAPI):
        def predict(self, x):
            time.sleep(0.002)
            return 2 * x

    class Batched(ls.LitAPI):
        def predict(self, xs):
            time.sleep(0.005)
            return [VERSION] * len(xs)

    class Stream(ls.LitAPI):
        async def predict(self, n):
            import asyncio
            for i in range(n):
                await asyncio.sleep(0.05)
                yield [VERSION, i]

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Double(), path="/double", accelerator="cpu"),
            ls.LitServer(Batched(max_batch_size=8, batch_timeout=0.005), path="/batched",
                         accelerator="cpu"),
            ls.LitServer(Stream(stream=True, enable_async=True), path="/stream", accelerator="cpu"),
            port=0,
        )
"""
PATHS = ("/double", "/batched", "/stream")
RATE = 300
STREAMS = 20
ITEMS = 100  # of a stream: 5 s
LIMIT_S = 10


async def run(args):
    reloads, alone_s = (9, 5) if args.quick else (100, 30)
    without, during, streams = http1.Tally(), http1.Tally(), http1.Tally()
    async with Server(PROGRAM) as server:
        client = http1.Client(server.port)

        async def call(tally, number):
            path = PATHS[number % 2]
            right = f"{2 * number}".encode().__eq__ if path == "/double" else bytes.isdigit
            await client.call(tally, path, number, right, LIMIT_S)

        async with http1.beside(*(stream(server.port, streams) for _ in range(STREAMS))):
            await http1.open_loop(RATE, alone_s, lambda number, _: call(without, number))
            # The endpoints in turn.
            commands = [("reload", PATHS[turn % len(PATHS)]) for turn in range(reloads)]
            work = run_commands(server, commands)
            failed, took = await under_load(work, lambda number: call(during, number))
        client.close()
        ended = await http1.wait_until(lambda: all_ended(server), 15)
    p99 = [report.percentile(tally.seconds, 0.99) for tally in (without, during)]
    return [
        *without.lines("without"),
        *during.lines("during"),
        report.figure("streams", ", ".join(f"{n} {what}" for what, n in streams.outcomes.items())),
        report.figure("reloads", reloads),
        report.figure("seconds of a reload, mean", took / reloads),
        report.at_most("reloads that failed", failed, 0),
        report.at_most("requests that failed", during.failed + during.outcomes["hung"], 0),
        report.at_most("streams that failed or changed their worker", streams.failed, 0),
        report.at_most("p99 during / without", p99[1] / p99[0], 1.3),
        report.figure("old generations gone after, s", ended),
    ]


async def under_load(work, call):
    """Calls `RATE` times a second, each with its number, for as long as `work` takes. Returns the
    result of `work`, and its seconds."""
    done = asyncio.create_task(work)
    number, begun = 0, time.monotonic()
    while not done.done():
        await http1.open_loop(RATE, 1, lambda at, _, n=number: call(n + at))
        number += RATE
    return done.result(), time.monotonic() - begun


async def run_commands(server, commands):
    """Runs a command for this server after another; returns how many failed."""
    failed = 0
    for command in commands:
        process = await asyncio.create_subprocess_exec(
            BIN / "litplex", *command, "--port", str(server.port),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ,
        )  # fmt: skip
        failed += await process.wait() != 0
    return failed


async def all_ended(server):
    generations = [each["generations"] for each in (await server.endpoints()).values()]
    states = {state["state"] for each in generations for state in each[:-1]}
    return states <= {"ended"}


async def stream(port, tally):
    """Reads one stream after another; each must come from one process, whole and in order."""
    while True:
        try:
            connection = await http1.Connection.open(port)
            await connection.send("/stream", b"%d" % ITEMS)
            status, headers = await connection.head()
            text = b"".join([piece async for piece in connection.pieces(headers)]).decode()
            connection.drop()
            items = [json.loads(line) for line in text.splitlines()]
            is_whole = [at for _, at in items] == list(range(ITEMS))
            is_one = len({version for version, _ in items}) == 1
            outcome = "ok" if status == 200 and is_whole and is_one else f"{status} wrong"
        except http1.BROKEN:
            outcome = "broken"
        tally.outcomes[outcome] += 1
