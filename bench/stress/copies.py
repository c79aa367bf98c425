"""10 MB of bytes through three stages: how much memory each process takes for them."""

import re
from pathlib import Path
from statistics import median

from . import http1, report
from .process import Server

MEGABYTE = 1 << 20
SIZE = 10 * MEGABYTE
ROUNDS = 7
LIMIT_S = 31

PROGRAM = """
    class Stage(ls.LitAPI):
        def __init__(self, following=None):
            super().__init__()
            self.following = following and ls.endpoint(following)
        def predict(self, body):
            return self.following(body) if self.following else len(body)

    class Pass(ls.LitAPI):
        def predict(self, body):
            return ls.Response(body, media_type="application/octet-stream")

    if __name__ == "__main__":
        def serve(api, path):
            return ls.LitServer(api, path=path, accelerator="cpu", max_body_bytes=1 << 25)

        ls.run_servers(
            serve(Stage("/b"), "/a"),
            serve(Stage("/c"), "/b"),
            serve(Stage(), "/c"),
            serve(Pass(), "/pass-a"),
            serve(Pass(), "/pass-b"),
            ls.LitServer(
                ls.Pipeline("/pass-a", "/pass-b", "/c"), path="/graph", max_body_bytes=1 << 25
            ),
            port=0,
        )
"""


async def run(args):
    direct = await measure("directly", "/c", "c", args)
    calls = await measure("calls", "/a", "abc", args)
    return direct + calls + await measure("pipeline", "/graph", ["pass-a", "pass-b", "c"], args)


async def measure(title, path, stages, args):
    """One request in a fresh server tells the memory, and others the time."""
    body, right, tally = bytes(SIZE), str(SIZE).encode().__eq__, http1.Tally()
    raw = {"content_type": "application/octet-stream"}
    async with Server(PROGRAM) as server:
        client = http1.Client(server.port)
        await client.call(http1.Tally(), path, b"x", b"1".__eq__, LIMIT_S, **raw)
        endpoints = await server.endpoints()
        workers = {f"/{name}": endpoints[f"/{name}"]["workers"][0]["pid"] for name in stages}
        processes = {"the server": server.pid, **workers}
        before = {name: begin_peak(pid) for name, pid in processes.items()}
        await client.call(tally, path, body, right, LIMIT_S, **raw)
        grown = {name: peak_mb(pid) - before[name] for name, pid in processes.items()}
        for _ in range(1 if args.quick else ROUNDS):
            await client.call(tally, path, body, right, LIMIT_S, **raw)
        client.close()
    return [
        report.figure(f"{title}: calls", dict(tally.outcomes)),
        report.figure(f"{title}: median, ms", report.milliseconds(median(tally.seconds))),
        *(
            report.figure(f"{title}: peak of {name}, of the value", grown[name] * MEGABYTE / SIZE)
            for name in processes
        ),
    ]


def begin_peak(pid):
    """Sets the peak of the resident memory to what it is now, and returns it in MB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_mb(pid)


def peak_mb(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) / 1024
