"""Load steps from 10 % to 300 % of a worker's capacity and back, and from no load."""

import asyncio

from . import http1, report
from .process import Server

SERVICE_S = 0.1
LIMIT_S = 31
WANTED = 3  # workers that 300 % keeps busy
SLACK_S = 2

PROGRAM = f"""
    import time

    class Square(ls.LitAPI):
        def predict(self, x):
            time.sleep({SERVICE_S})
            return x * x

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Square(), path="/fixed", accelerator="cpu"),
            ls.LitServer(Square(), path="/steps", min_workers=1, max_workers=4, accelerator="cpu"),
            ls.LitServer(Square(), path="/none", min_workers=0, max_workers=2, accelerator="cpu"),
            port=0,
        )
"""


async def run(args):
    low_s, high_s, after_s = (4, 10, 10) if args.quick else (15, 40, 120)
    tally, none = http1.Tally(), http1.Tally()
    async with Server(PROGRAM) as server:
        from_none = await zero_to_one(server, none)
        await load(server.port, tally, 0.1, low_s)
        at_low = await ready(server)
        up = asyncio.create_task(http1.wait_until(lambda: has(server, WANTED), high_s, 0.05))
        await load(server.port, tally, 3, high_s)
        at_high, up_s = await ready(server), await up
        down = asyncio.create_task(http1.wait_until(lambda: has_at_most(server, 1), after_s, 0.2))
        await load(server.port, tally, 0.1, after_s)
        down_s = await down
        may_take = round(server.starting_s + SLACK_S, 2)
    return [
        *tally.lines("steps"),
        report.figure("a worker starts in, s", round(server.starting_s, 3)),
        report.figure("workers at 10 %", at_low),
        report.figure("workers at the end of 300 %", at_high),
        report.at_most(f"{WANTED} workers are ready after, s", up_s, may_take),
        report.figure("one worker again after, s", down_s if down_s else f"not in {after_s}"),
        report.at_most("first answer without a worker, s", from_none, may_take),
        report.at_most("failed", tally.failed + none.failed, 0),
        report.at_most("hung", tally.outcomes["hung"] + none.outcomes["hung"], 0),
    ]


async def load(port, tally, share, seconds):
    """Offers a load of this share of one worker's capacity."""
    caller = http1.Client(port)

    async def call(number, due):
        right = str(number * number).encode().__eq__
        await caller.call(tally, "/steps", number, right, LIMIT_S, due)

    await http1.open_loop(share / SERVICE_S, seconds, call)
    caller.close()


async def zero_to_one(server, tally):
    """Sends a request to the endpoint without a worker; returns the seconds to its response."""
    caller = http1.Client(server.port)
    await caller.call(tally, "/none", 3, b"9".__eq__, LIMIT_S)
    caller.close()
    return tally.seconds[0] if tally.seconds else None


async def ready(server):
    endpoints = await server.endpoints()
    if endpoints is None:
        return None
    return sum(worker["state"] == "ready" for worker in endpoints["/steps"]["workers"])


async def has(server, count):
    return (await ready(server) or 0) >= count


async def has_at_most(server, count):
    workers = await ready(server)
    return workers is not None and workers <= count
