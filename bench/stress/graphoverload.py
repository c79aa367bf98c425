"""Three stages at three times the capacity of the slowest: the goodput, and the work in vain."""

import math
import time

from . import chain, http1, report
from .process import Server

SLOW_S, QUICK_S = 0.01, 0.004
TIMEOUT_S = 0.5
OVERLOAD = 3
LIMIT_S = 5

SYNC = {"callers": "Stage", "workers": (8, 8, 1)}
ASYNC = {"callers": "AsyncStage", "workers": (1, 1, 1)}
PIPELINE = {"pipeline": True, "workers": (1, 1, 1)}

# The variant, its program, and the slowest stage. An `async` stage waits and does not compute, so
# that only the last one can be the slowest.
VARIANTS = [
    ("calls, slow /c", SYNC, "c"),
    ("async calls, slow /c", ASYNC, "c"),
    ("pipeline, slow /a", PIPELINE, "a"),
    ("pipeline, slow /b", PIPELINE, "b"),
    ("pipeline, slow /c", PIPELINE, "c"),
]


async def run(args):
    seconds = 5 if args.quick else 15
    lines = []
    for title, options, slow in VARIANTS:
        lines += await measure(title, options, slow, seconds)
    return lines


async def measure(title, options, slow, seconds):
    durations = [SLOW_S if name == slow else QUICK_S for name in chain.STAGES]
    program = chain.program(durations, timeout=TIMEOUT_S, **options)
    path, inner = ("/graph", "abc") if "pipeline" in options else ("/a", "bc")
    tally, good = http1.Tally(), set()
    async with Server(program) as server:
        client = http1.Client(server.port, max_idle=1024)

        async def call(number, due):
            body = str(number).encode()
            if await client.call(tally, path, body, body.__eq__, LIMIT_S, due) == "ok":
                good.add(number)

        alone = await capacity(server.port, f"/{slow}")
        await http1.open_loop(0.5 / SLOW_S, 1, call)
        # The first requests that fail teach the server which endpoints they need.
        await http1.open_loop(OVERLOAD / SLOW_S, 2, call)
        for name in chain.STAGES:
            (server.folder / f"began-{name}").write_bytes(b"")
        tally, good = http1.Tally(), set()
        await http1.open_loop(OVERLOAD / SLOW_S, seconds, call)
        client.close()
        begun = {name: chain.begun(server, name) for name in chain.STAGES}
    return [
        *tally.lines(title),
        report.figure(f"{title}: /{slow} alone, req/s", alone),
        report.at_least(f"{title}: goodput, of that", len(good) / seconds / alone, 0.95),
        *(wasted(title, name, begun[name], good) for name in inner),
        report.at_most(f"{title}: hung", tally.outcomes["hung"], 0),
    ]


async def capacity(port, path):
    """Returns the requests per second that a stage answers in a closed loop."""
    client, tally, count = http1.Client(port), http1.Tally(), int(2 / SLOW_S)
    begin = time.monotonic()
    await http1.closed_loop(
        8, count, lambda _: client.call(tally, path, b"1", b"1".__eq__, LIMIT_S)
    )
    client.close()
    return tally.outcomes["ok"] / (time.monotonic() - begin)


def wasted(title, name, begun, good):
    """The share of a stage's work that was done for requests without a response."""
    total = begun.total()
    in_vain = sum(count for number, count in begun.items() if number not in good)
    return report.at_most(
        f"{title}: in vain at /{name}", in_vain / total if total else math.nan, 0.01
    )
