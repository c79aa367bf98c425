"""A client leaves while its hook has 100 calls in flight, each three deep: every hook is told."""

import asyncio
import json
import time
from urllib.request import urlopen

from . import http1, report
from .process import Server

LIMIT_S = 20
LEVELS = ("b", "c", "d")

# Each hook notes when it begins and when it is told. The last ones wait to be told, or, in a
# "meeting", until as many as the request asks for are there at the same time.
PROGRAM = """
    import asyncio, os, time

    class Hook(ls.LitAPI):
        def __init__(self, path, following):
            super().__init__()
            self.told = path
            if following:
                self.following = ls.endpoint(following)
            self.is_last = following is None
        def setup(self, device):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self.notes, self.meeting = (os.open(name, flags) for name in ("notes", "meeting"))
        def note(self, event, context):
            line = f"{event} {self.told} {time.monotonic()} {context.cancelled}\\n"
            os.write(self.notes, line.encode())
        def arrive(self, wanted):
            os.write(self.meeting, b".")
            return lambda: os.fstat(self.meeting).st_size >= wanted

    class AsyncHook(Hook):
        async def predict(self, x, context):
            self.note("began", context)
            try:
                if x["wide"] > 1:
                    inner = {**x, "wide": 1}
                    calls = self.following.amap([inner] * x["wide"], in_flight=128)
                    return [y async for y in calls]
                if not self.is_last:
                    return await self.following.acall(x)
                if x["meet"]:
                    met = self.arrive(x["meet"])
                    while not met():
                        await asyncio.sleep(0.01)
                    return 1
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.note("told", context)
                raise

    class PlainHook(Hook):
        def predict(self, x, context):
            self.note("began", context)
            try:
                if x["wide"] > 1:
                    inner = {**x, "wide": 1}
                    return list(self.following.map([inner] * x["wide"], in_flight=128))
                if not self.is_last:
                    return self.following(x)
                met = self.arrive(x["meet"]) if x["meet"] else lambda: False
                while not met() and not context.cancelled:
                    time.sleep(0.001)
                return 1
            finally:
                if context.cancelled:
                    self.note("told", context)

    if __name__ == "__main__":
        ls.run_servers(
            *(
                ls.LitServer(
                    globals()[kind](path, following),
                    path=path, accelerator="cpu", timeout=60, **more,
                )
                for path, kind, following, more in ENDPOINTS
            ),
            port=0,
        )
"""


def endpoints(root, callees, width):
    """The root and three levels of callees, each with room for as many calls as the root makes."""
    kind, room = callees, {"max_concurrency": width}
    if callees == "PlainHook":
        room = {"workers_per_device": width}
    chain = [
        (f"/{a}", kind, b and f"/{b}", room) for a, b in zip("bcd", ["c", "d", None], strict=True)
    ]
    return [("/a", root, "/b", {}), *chain]


VARIANTS = [
    ("async hooks", "AsyncHook", "AsyncHook", 100),
    ("a plain hook calls async ones", "PlainHook", "AsyncHook", 100),
    ("plain hooks", "PlainHook", "PlainHook", 6),
]


async def run(args):
    rounds = 3 if args.quick else 20
    lines = []
    for title, root, callees, width in VARIANTS:
        lines += await measure(title, endpoints(root, callees, width), width, rounds)
    return lines


async def measure(title, graph, width, rounds):
    hooks = 1 + len(LEVELS) * width
    seconds, untold, not_cancelled = [], 0, 0
    async with Server(PROGRAM.replace("ENDPOINTS", repr(graph))) as server:
        for _ in range(rounds):
            told, left = await leave(server, width, hooks)
            untold += hooks - len(told)
            not_cancelled += sum(not cancelled for _, cancelled in told)
            seconds += [at - left for at, _ in told]
        rest = await http1.wait_until(lambda: is_idle(server.port), LIMIT_S)
        met, tally = await meet(server, width)
    return [
        report.figure(f"{title}: hooks", hooks * rounds),
        report.at_most(f"{title}: not told", untold, 0),
        report.at_most(f"{title}: told without `context.cancelled`", not_cancelled, 0),
        report.figure(f"{title}: told after, p50, ms", ms(report.percentile(seconds, 0.5))),
        report.at_most(f"{title}: told after, longest, ms", ms(report.percentile(seconds, 1)), 50),
        report.at_most(f"{title}: in flight is 0 after, s", rest, 1),
        report.figure(f"{title}: then all places are taken at once", dict(tally.outcomes)),
        report.at_least(f"{title}: places taken at once", met, width),
    ]


ms = report.milliseconds


async def leave(server, width, hooks):
    """Returns when each hook was told, and whether it saw so, and when the client left."""
    (server.folder / "notes").write_bytes(b"")
    connection = await http1.Connection.open(server.port)
    await connection.send("/a", json.dumps({"wide": width, "meet": 0}).encode())

    async def noted(event):
        return len(notes(server, event)) >= hooks

    if await http1.wait_until(lambda: noted("began"), LIMIT_S) is None:
        raise RuntimeError(f"of {hooks} hooks only {len(notes(server, 'began'))} began")
    await asyncio.sleep(0.05)
    left = time.monotonic()
    connection.drop()
    await http1.wait_until(lambda: noted("told"), 5)
    return notes(server, "told"), left


def notes(server, event):
    """Returns the time of each note of this event, and whether `context.cancelled` was true."""
    lines = (line.split() for line in (server.folder / "notes").read_text().splitlines())
    return [(float(at), seen == "True") for name, _, at, seen in lines if name == event]


async def meet(server, width):
    """Lets as many requests as there are places be in the last hook at the same time."""
    tally, client = http1.Tally(), http1.Client(server.port)
    (server.folder / "meeting").write_bytes(b"")
    right = json.dumps([1] * width, separators=(",", ":")).encode().__eq__
    await client.call(tally, "/a", {"wide": width, "meet": width}, right, LIMIT_S)
    client.close()
    return (server.folder / "meeting").stat().st_size if tally.outcomes["ok"] else 0, tally


async def is_idle(port):
    """Returns whether no endpoint and no worker has a request, as `/metrics` says."""
    text = await asyncio.to_thread(metrics, port)
    figures = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if 'inflight_requests{endpoint="/' in line
    ]
    return bool(figures) and not any(figures)


def metrics(port):
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()
