"""Half of the clients leave at a random point: the server frees all their resources."""

import asyncio
import json
import random

from . import http1, report
from .process import Server

CALLERS = 64
LIMIT_S = 31
SETTLE_S = 10
ITEMS = 20

# Each generator writes a byte to a file when it begins, and another when its `finally` runs.
PROGRAM = """
    import os, time

    class Square(ls.LitAPI):
        def predict(self, request):
            time.sleep(0.002)
            return len(request["text"])

    class Count(ls.LitAPI):
        def setup(self, device):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self.began, self.closed = (os.open(name, flags) for name in ("began", "closed"))
        def predict(self, request):
            os.write(self.began, b".")
            try:
                for i in range(request["n"]):
                    time.sleep(0.0005)
                    yield i
            finally:
                os.write(self.closed, b".")

    if __name__ == "__main__":
        options = {"workers_per_device": 2, "accelerator": "cpu"}
        ls.run_servers(
            ls.LitServer(Square(), path="/square", **options),
            ls.LitServer(Count(stream=True), path="/count", **options),
            port=0,
        )
"""
TEXT = "x" * 20_000
UNARY = ("/square", json.dumps({"text": TEXT}).encode(), str(len(TEXT)).encode())
STREAM = (
    "/count",
    json.dumps({"n": ITEMS, "text": TEXT}).encode(),
    b"".join(b"%d\n" % i for i in range(ITEMS)),
)


async def run(args):
    count = 1000 if args.quick else 10_000
    tally, left, rng = http1.Tally(), http1.Tally(), random.Random(7)
    async with Server(PROGRAM) as server:
        await load(server.port, 200, http1.Tally(), http1.Tally(), rng)
        await asyncio.sleep(1)
        before = server.usage()
        await load(server.port, count, tally, left, rng)
        settled = await http1.wait_until(lambda: is_idle(server), SETTLE_S)
        await asyncio.sleep(1)
        after, rest = server.usage(), await in_flight(server)
        began, closed = ((server.folder / name).stat().st_size for name in ("began", "closed"))
    return [
        *tally.lines("those who stayed"),
        report.figure("those who left", dict(left.outcomes)),
        report.at_most("failed", tally.failed, 0),
        report.at_most("hung", tally.outcomes["hung"], 0),
        report.at_most("in flight afterwards", rest, 0),
        report.figure("none in flight after, s", settled),
        report.figure("generators that began", began),
        report.at_most("generators whose finally did not run", began - closed, 0),
        report.at_most("descriptors more than before", after.fds - before.fds, 2),
        report.figure("RSS before and after, MB", f"{before.rss_mb} {after.rss_mb}"),
    ]


async def load(port, count, tally, left, rng):
    """Half of the requests are unary and half are streams; every second client of each leaves."""
    caller = http1.Client(port)

    async def call(number):
        path, body, answer = (UNARY, STREAM)[number // 2 % 2]
        if number % 2:
            await caller.call(tally, path, body, answer.__eq__, LIMIT_S)
        else:
            await leave(port, left, path, body, rng)

    await http1.closed_loop(CALLERS, count, call)
    caller.close()


async def leave(port, left, path, body, rng):
    """Drops the connection while it sends, waits or reads."""
    connection = await http1.Connection.open(port)
    whole = http1.request(path, body)
    point = rng.choice(["sending", "waiting", "reading"])
    try:
        sent = whole[: rng.randrange(len(whole))] if point == "sending" else whole
        connection.writer.write(sent)
        await connection.writer.drain()
        if point == "waiting":
            await asyncio.sleep(rng.random() * 0.05)
        elif point == "reading":
            _, headers = await asyncio.wait_for(connection.head(), LIMIT_S)
            await read_some(connection, headers, rng.randrange(ITEMS))
        left.outcomes[point] += 1
    except (*http1.BROKEN, asyncio.TimeoutError) as error:
        left.outcomes[type(error).__name__] += 1
    connection.drop()


async def read_some(connection, headers, count):
    """Reads at most this many pieces; a body that arrives in one piece is read whole."""
    pieces = connection.pieces(headers)
    async for _ in pieces:
        count -= 1
        if count <= 0:
            break
    await pieces.aclose()


async def in_flight(server):
    """The number of requests that wait or are computed; None if litplex does not report it."""
    endpoints = await server.endpoints()
    if endpoints is None:
        return None
    return sum(each["queued"] + each["in_flight"] for each in endpoints.values())


async def is_idle(server):
    return await in_flight(server) == 0
