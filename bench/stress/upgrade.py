"""A server is upgraded again and again under 300 requests/s, with 20 streams open."""

from . import http1, report
from .process import Server
from .reloads import PROGRAM, RATE, STREAMS, run_commands, stream, under_load

LIMIT_S = 10


async def run(args):
    upgrades, alone_s = (3, 5) if args.quick else (20, 30)
    without, during, streams = http1.Tally(), http1.Tally(), http1.Tally()
    async with Server(PROGRAM) as server:
        client = http1.Client(server.port)

        async def call(tally, number):
            # Half of the requests come over new connections, which a closed socket would refuse.
            of = client if number % 2 else http1.Client(server.port, max_idle=0)
            right = f"{2 * number}".encode().__eq__
            await of.call(tally, "/double", number, right, LIMIT_S)

        async with http1.beside(*(stream(server.port, streams) for _ in range(STREAMS))):
            await http1.open_loop(RATE, alone_s, lambda number, _: call(without, number))
            work = run_commands(server, [("upgrade",)] * upgrades)
            failed, took = await under_load(work, lambda number: call(during, number))
        client.close()
        keeper = server.usage()
    p99 = [report.percentile(tally.seconds, 0.99) for tally in (without, during)]
    return [
        *without.lines("without"),
        *during.lines("during"),
        report.figure("streams", ", ".join(f"{n} {what}" for what, n in streams.outcomes.items())),
        report.figure("upgrades", upgrades),
        report.figure("seconds of an upgrade, mean", took / upgrades),
        report.figure("p99 during / without", p99[1] / p99[0]),
        report.figure("first process after the upgrades, MB", keeper.rss_mb),
        report.at_most("upgrades that failed", failed, 0),
        report.at_most("requests that failed", during.failed + during.outcomes["hung"], 0),
        report.at_most("streams that failed or changed their worker", streams.failed, 0),
    ]
