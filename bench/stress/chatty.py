"""A model that prints as fast as it can, and its effect on another endpoint.

It is also measured beside one that only computes, which takes as much of the cores.
"""

from statistics import median

from harness.load import wrk_errors

from . import http1, report, w1
from .process import Server
from .scrape import spread

ROUNDS, SECONDS, CONNECTIONS = 5, 5, 2

PROGRAM = """
    import time

    class Square(ls.LitAPI):
        def predict(self, request):
            return {"output": request["input"] ** 2}

    class Chatty(ls.LitAPI):
        def predict(self, request):
            end, line = time.monotonic() + request["seconds"], "x" * 99
            with open("/dev/null", "w") as nowhere:
                while time.monotonic() < end:
                    print(line, file=None if request["prints"] else nowhere)
            return True

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Square(), accelerator="cpu"),
            ls.LitServer(Chatty(), path="/chatty", accelerator="cpu"),
            port=0,
        )
"""


async def run(args):
    rounds, seconds = (1, 2) if args.quick else (ROUNDS, SECONDS)
    alone, computing, printing = [], [], []
    async with Server(PROGRAM) as server:
        await w1.wrk(server.port, CONNECTIONS, 1)
        for _ in range(rounds):
            alone.append(await w1.wrk(server.port, CONNECTIONS, seconds))
            for prints, results in ((False, computing), (True, printing)):
                async with http1.beside(chat(server.port, prints, seconds + 1)):
                    results.append(await w1.wrk(server.port, CONNECTIONS, seconds))
        log_mb = server.log.stat().st_size / 1e6
    return [
        report.figure("p99 ms, alone", spread(alone)),
        report.figure("p99 ms, beside a model that computes", spread(computing)),
        report.figure("p99 ms, beside one that prints", spread(printing)),
        report.figure("printed, MB/s", round(log_mb / rounds / (seconds + 1), 1)),
        report.at_most("printing / alone, median", ratio(alone, printing), 1.2),
        report.figure("printing / computing, median", ratio(computing, printing)),
        report.at_most("failed", sum(map(wrk_errors, alone + computing + printing)), 0),
    ]


def ratio(before, after):
    return median(b["p99_ms"] / a["p99_ms"] for a, b in zip(before, after, strict=True))


async def chat(port, prints, seconds):
    """Keeps the model busy for this time."""
    caller = http1.Client(port)
    request = {"seconds": seconds, "prints": prints}
    try:
        await caller.call(http1.Tally(), "/chatty", request, lambda _: True, seconds + 10)
    finally:
        caller.close()
