"""A random worker is killed every 2 s under a graph of three stages at 70 % load."""

from . import chain, http1, killstorm, report
from .process import Server

SECONDS = (0.004, 0.01, 0.02)  # of each stage
WORKERS = 2
LOAD = 0.7
LIMIT_S = 31  # one more than the server's own timeout


async def run(args):
    seconds = 16 if args.quick else 120
    calls = await storm("calls", "/a", seconds, callers="Stage")
    return calls + await storm("pipeline", "/graph", seconds, pipeline=True)


async def storm(title, path, seconds, **graph):
    tally, back = http1.Tally(), []
    async with Server(chain.program(SECONDS, [WORKERS] * 3, **graph)) as server:
        client = http1.Client(server.port)

        async def call(number, due):
            body = str(number).encode()
            await client.call(tally, path, body, body.__eq__, LIMIT_S, due)

        async with http1.beside(killstorm.kill(server, back)):
            await http1.open_loop(rate(graph), seconds, call)
        client.close()
        begun = {name: chain.begun(server, name) for name in chain.STAGES}
    return [
        *tally.lines(title),
        report.figure(f"{title}: kills", len(back)),
        report.figure(f"{title}: another process is there after, s, longest", max(back)),
        *(
            report.at_most(f"{title}: most attempts of /{name}", max(counts.values()), 2)
            for name, counts in begun.items()
        ),
        report.at_most(f"{title}: roots with two attempts or more", repeated(begun), 2 * len(back)),
        report.at_most(f"{title}: failed", tally.failed, 0),
        report.at_most(f"{title}: hung", tally.outcomes["hung"], 0),
    ]


def rate(graph):
    """70 % of what the slowest stage can do: a hook that calls holds its worker meanwhile."""
    slowest = sum(SECONDS) if "callers" in graph else max(SECONDS)
    return LOAD * WORKERS / slowest


def repeated(begun):
    return len({number for counts in begun.values() for number in counts if counts[number] > 1})
