"""SIGTERM with 450 requests and 50 streams in flight: all complete, new requests are refused."""

import asyncio
import signal
import time

from . import http1, report
from .process import Server

UNARY, STREAMS, ITEMS = 450, 50, 20
LIMIT_S = 40

PROGRAM = """
    import time

    class Square(ls.LitAPI):
        def predict(self, x):
            time.sleep(0.02)
            return x * x

    class Count(ls.LitAPI):
        def predict(self, n):
            for i in range(n):
                time.sleep(0.005)
                yield i

    if __name__ == "__main__":
        options = {"timeout": 60, "max_queue": 1000, "accelerator": "cpu"}
        ls.run_servers(
            ls.LitServer(Square(), path="/square", **options),
            ls.LitServer(Count(stream=True), path="/count", workers_per_device=2, **options),
            port=0,
            grace=30,
        )
"""


async def run(_args):
    tally, refused = http1.Tally(), http1.Tally()
    async with Server(PROGRAM) as server:
        unary, streams = http1.Client(server.port), http1.Client(server.port)
        numbers = b"".join(b"%d\n" % i for i in range(ITEMS))
        calls = [
            asyncio.create_task(unary.call(tally, "/square", 3, b"9".__eq__, LIMIT_S))
            for _ in range(UNARY)
        ] + [
            asyncio.create_task(streams.call(tally, "/count", ITEMS, numbers.__eq__, LIMIT_S))
            for _ in range(STREAMS)
        ]
        # The client needs a while to send so many requests.
        while await accepted(server) < UNARY + STREAMS:
            await asyncio.sleep(0.02)
        in_flight = sum(not call.done() for call in calls)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        while not all(call.done() for call in calls):
            await knock(server.port, refused)
            await asyncio.sleep(0.05)
        answered_s = time.monotonic() - start
        await asyncio.to_thread(server.process.wait, LIMIT_S)
        ended_s = time.monotonic() - start
        status = server.process.returncode
    other = sum(n for outcome, n in refused.outcomes.items() if outcome != "told")
    return [
        *tally.lines("in flight"),
        report.at_least("in flight at SIGTERM", in_flight, 0.7 * (UNARY + STREAMS)),
        report.at_most("not complete", UNARY + STREAMS - tally.outcomes["ok"], 0),
        report.figure("newcomers", dict(refused.outcomes)),
        report.at_least("newcomers told 503 and to close", refused.outcomes["told"], 1),
        report.at_most("newcomers told otherwise", other, 0),
        report.figure("all answered after, s", round(answered_s, 2)),
        report.figure("ended after, s", round(ended_s, 2)),
        report.at_most("exit status", status, 0),
        report.at_least("exit status", status, 0),
    ]


async def accepted(server):
    """The number of requests that the server has accepted."""
    return sum(endpoint["requests"] for endpoint in (await server.endpoints() or {}).values())


async def knock(port, tally):
    """Sends a request on a new connection, as a client does that does not know of the shutdown."""
    caller = http1.Client(port)
    try:
        answer = await asyncio.wait_for(caller.ask("/square", b"1"), 5)
        closes = answer.headers.get("connection", "").lower() == "close"
        told = answer.status == 503 and closes
        tally.outcomes["told" if told else f"{answer.status}, close: {closes}"] += 1
    except asyncio.TimeoutError:
        tally.outcomes["hung"] += 1
    except http1.BROKEN as error:
        tally.outcomes[type(error).__name__] += 1
    caller.close()
