"""Mixed traffic with kills, disconnects, large bodies and streams: the server stays its size."""

import asyncio
import os
import random
import signal
import statistics
import time

from . import disconnects, http1, report
from .process import Server

LIMIT_S = 31
EVERY_S = 5
KILL_EVERY_S = 20
LARGE = bytes(1 << 20)
ITEMS = 50

PROGRAM = """
    import time

    class Square(ls.LitAPI):
        def predict(self, x):
            return x * x

    class Length(ls.LitAPI):
        def predict(self, datas):
            time.sleep(0.005)
            return [len(data) for data in datas]

    class Count(ls.LitAPI):
        def predict(self, request):
            for i in range(request["n"] if isinstance(request, dict) else request):
                time.sleep(0.0005)
                yield i

    if __name__ == "__main__":
        options = {"workers_per_device": 2, "accelerator": "cpu"}
        length = Length(max_batch_size=8, batch_timeout=0.002)
        ls.run_servers(
            ls.LitServer(Square(), path="/square", **options),
            ls.LitServer(length, path="/length", **options),
            ls.LitServer(Count(stream=True), path="/count", **options),
            port=0,
        )
"""


async def run(args):
    seconds = 60 * (args.minutes or (1 if args.quick else 20))
    warm_s = 10 if args.quick else 120
    tallies = {name: http1.Tally() for name in ("square", "length", "count")}
    left = http1.Tally()
    usages = []
    async with Server(PROGRAM) as server:
        start = time.monotonic()
        async with http1.beside(kill(server), sample(server, start, usages)):
            await load(server.port, tallies, left, seconds)
    later = [usage for at, usage in usages if at >= warm_s]
    streams = tallies["count"].outcomes
    unary = [tallies["square"], tallies["length"]]
    return [
        *(line for name, tally in tallies.items() for line in tally.lines(name)),
        report.figure("those who left", dict(left.outcomes)),
        # A stream that has sent items cannot be computed again: it breaks, and the client sees it.
        report.figure("streams that broke or were refused", tallies["count"].failed),
        report.at_most("streams that were wrong", streams["wrong"], 0),
        report.at_most("failed", sum(tally.failed for tally in unary), 0),
        report.at_most("hung", sum(tally.outcomes["hung"] for tally in tallies.values()), 0),
        *growth(later),
    ]


def growth(usages):
    """Reports whether the usage is flat: medians of the first and last quarter differ by noise."""
    quarter = max(1, len(usages) // 4)

    def medians(field):
        first, last = usages[:quarter], usages[-quarter:]
        return [statistics.median(getattr(u, field) for u in part) for part in (first, last)]

    lines = []
    for field, name, allowed in [
        ("rss_mb", "RSS, MB", lambda first: max(4, 0.05 * first)),
        ("fds", "descriptors", lambda _: 4),
        ("threads", "threads", lambda _: 1),
    ]:
        first, last = medians(field) if usages else (0, float("inf"))
        lines.append(report.figure(f"{name}, first and last quarter", f"{first:g} {last:g}"))
        lines.append(report.at_most(f"{name}, growth", round(last - first, 1), allowed(first)))
    return lines


async def load(port, tallies, left, seconds):
    """Offers about half the load that two cores sustain, client included."""
    # Few idle connections, so that a short peak does not show as open descriptors afterwards.
    caller, rng = http1.Client(port, max_idle=8), random.Random(7)

    async def square(number, due):
        right = str(number * number).encode().__eq__
        await caller.call(tallies["square"], "/square", number, right, LIMIT_S, due)

    async def length(number, due):
        body = LARGE[: rng.randrange(1, len(LARGE))]
        right = str(len(body)).encode().__eq__
        kind = {"content_type": "application/octet-stream"}
        await caller.call(tallies["length"], "/length", body, right, LIMIT_S, due, **kind)

    async def count(number, due):
        numbers = b"".join(b"%d\n" % i for i in range(ITEMS))
        await caller.call(tallies["count"], "/count", ITEMS, numbers.__eq__, LIMIT_S, due)

    async def leave(number, due):
        path, body, _ = disconnects.STREAM
        await disconnects.leave(port, left, path, body, rng)

    rates = {square: 200, length: 20, count: 10, leave: 5}
    await asyncio.gather(*(http1.open_loop(rate, seconds, call) for call, rate in rates.items()))
    caller.close()


async def kill(server):
    while True:
        await asyncio.sleep(KILL_EVERY_S)
        if workers := server.workers():
            os.kill(random.choice(workers), signal.SIGKILL)


async def sample(server, start, usages):
    while True:
        usages.append((time.monotonic() - start, server.usage()))
        await asyncio.sleep(EVERY_S)
