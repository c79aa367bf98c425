"""Ten times the capacity: the cost of a refusal, and the service of admitted requests."""

import asyncio
import json
import subprocess

from . import http1, report
from .process import HOME, Server

BATCH, SERVICE_S = 32, 0.05
CAPACITY = BATCH / SERVICE_S
TIMEOUT_S = 1

PROGRAM = f"""
    import time

    class Square(ls.LitAPI):
        def decode_request(self, request):
            return request["input"]
        def predict(self, xs):
            time.sleep({SERVICE_S})
            return [x * x for x in xs]
        def encode_response(self, output):
            return {{"output": output}}

    if __name__ == "__main__":
        api = Square(max_batch_size={BATCH}, batch_timeout=0.005)
        ls.LitServer(api, timeout={TIMEOUT_S}, accelerator="cpu").run(port=0)
"""


async def run(args):
    seconds = 6 if args.quick else 30
    usages = []
    async with Server(PROGRAM) as server:
        await loadgen(server.port, "closed", conns=64, secs=2)
        async with http1.beside(sample(server, usages)):
            load = {"rate": 10 * CAPACITY, "secs": seconds, "timeout": 5}
            result = await loadgen(server.port, "open", **load)
    early, late = (report.percentile([u.rss_mb for u in part], 1) for part in thirds(usages))
    return [
        report.figure("offered/s", round(result["offered_rps"])),
        report.figure("capacity/s", round(CAPACITY)),
        report.figure("refused", result["shed"]),
        report.figure("refused: p50, ms", result["shed_p50_ms"]),
        report.at_most("refused: p99, ms", result["shed_p99_ms"], 1),
        report.at_least("goodput, of capacity", result["goodput_rps"] / CAPACITY, 0.95),
        report.figure("answered: p50, ms", result["p50_ms"]),
        report.at_most("answered: p99, ms", result["p99_ms"], TIMEOUT_S * 1000),
        report.at_most("refused otherwise", sum(result["other_status"].values()), 0),
        report.at_most("errors", sum(result["errors"].values()), 0),
        report.at_most("hung", result["timeouts"] + result["client_unsent"], 0),
        report.figure("RSS of the first third, MB", early),
        report.at_most("RSS of the last, MB", late, round(1.05 * early, 1)),
    ]


def thirds(usages):
    """Returns the first third, in which queues and pools fill, and the last third."""
    third = len(usages) // 3
    return usages[:third], usages[-third:]


async def loadgen(port, mode, **options):
    """Runs the harness's load generator: at this rate a client in Python would be the limit."""
    program = HOME / "target" / "release" / "loadgen"
    command = [program, mode, "--addr", f"127.0.0.1:{port}"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.PIPE)
    return json.loads((await process.communicate())[0])


async def sample(server, usages):
    while True:
        usages.append(server.usage())
        await asyncio.sleep(0.25)
