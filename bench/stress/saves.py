"""Files are saved under `litplex serve --reload`: the time until an answer of the new code."""

import asyncio
import time

from . import http1, report
from .process import Server

MODEL = """import time

import litplex as ls

LEVEL = 0


class Model(ls.LitAPI):
    def setup(self, device):
        time.sleep({seconds})

    def predict(self, x):
        return [LEVEL, 0]
"""

PROGRAM = """
    import heavy, light, other

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(heavy.Model(), path="/heavy", accelerator="cpu"),
            ls.LitServer(light.Model(), path="/light", accelerator="cpu"),
            ls.LitServer(other.Model(), path="/other", accelerator="cpu"),
            port=0,
        )
"""
RATE = 200
LIMIT_S = 30


async def run(args):
    setup, saves, alone_s = (2, 5, 5) if args.quick else (10, 20, 20)
    without, during = http1.Tally(), http1.Tally()
    seconds = {"heavy": setup, "light": 0, "other": 0}
    files = {f"{name}.py": MODEL.format(seconds=wait) for name, wait in seconds.items()}
    async with Server(PROGRAM, files=files, reload=True) as server:
        client = http1.Client(server.port)

        async def call(tally, number):
            await client.call(tally, "/other", number, b"[0,0]".__eq__, LIMIT_S)

        await http1.open_loop(RATE, alone_s, lambda number, _: call(without, number))
        changes = asyncio.create_task(all_saves(server, client, saves))
        while not changes.done():
            await http1.open_loop(RATE, 1, lambda number, _: call(during, number))
        patched, reloaded, slow = changes.result()
        generation = (await server.endpoints())["/heavy"]["generations"][-1]["generation"]
        client.close()
    p99 = [report.percentile(tally.seconds, 0.99) for tally in (without, during)]
    return [
        *without.lines("without"),
        *during.lines("during"),
        report.figure("hooks, median ms", report.milliseconds(report.percentile(patched, 0.5))),
        report.at_most(f"hooks, `setup` of {setup} s, longest s", max(patched), 0.2),
        report.at_most("hooks: generations of its endpoint", generation, 2),
        report.figure("reload, median ms", report.milliseconds(report.percentile(reloaded, 0.5))),
        report.at_most("reload without `setup`, longest s", max(reloaded), 0.3),
        report.at_most(f"reload with a `setup` of {setup} s, beyond it, s", slow - setup, 0.3),
        report.at_most("requests of the other endpoint that failed", during.failed, 0),
        report.at_most("its p99, ÷ without saves", p99[1] / p99[0], 1.3),
    ]


async def all_saves(server, client, saves):
    """Returns the seconds from each save to the new answer: of hooks, of constants in a model that
    loads at once, and of one that loads long."""
    patched, reloaded = [], []
    for number in range(1, saves + 1):
        patched.append(await save(server, client, "heavy", 0, number))
        reloaded.append(await save(server, client, "light", number, 0))
        await asyncio.sleep(0.3)
    return patched, reloaded, await save(server, client, "heavy", 1, 0)


async def save(server, client, name, level, number):
    path = server.folder / f"{name}.py"
    lines = path.read_text().splitlines(keepends=True)
    begins = {
        "LEVEL = ": f"LEVEL = {level}\n",
        "        return": f"        return [LEVEL, {number}]\n",
    }
    for at, line in enumerate(lines):
        for start, new in begins.items():
            if line.startswith(start):
                lines[at] = new
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(lines))
    fresh.replace(path)
    began = time.monotonic()
    expected = b"[%d,%d]" % (level, number)
    while (await client.ask(f"/{name}", b"1")).body != expected:
        await asyncio.sleep(0.002)
    return time.monotonic() - began
