"""New generations that cannot work, one after another, under 100 requests/s."""

import asyncio
import os
import time

from . import http1, report
from .process import BIN, Server

PROGRAM = """
    import model

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(model.Double(), path="/double", accelerator="cpu",
                         requirements="requirements.txt"),
            port=0,
        )
"""
MODEL = """
import ctypes, os, random, signal, time
import litplex as ls
{module}

class Double(ls.LitAPI):
    request_example = 1

    def setup(self, device):
        {setup}

    def predict(self, x):
        time.sleep(0.005)
        if x != 1:
            {predict}
        return 2 * x
"""
PARTS = {"module": "", "setup": "pass", "predict": "pass"}
CANARY = ("--canary", "20%")
# What is wrong, what the reload is given, and a part of the reason that it must name.
KINDS = [
    ({"setup": "raise OSError('no weights')"}, (), "no weights"),
    ({"setup": "time.sleep(60)"}, ("--timeout", "2"), "was not ready after 2 s"),
    ({"setup": "os.kill(os.getpid(), signal.SIGKILL)"}, (), "killed by signal 9"),
    ({"module": "this is no Python"}, (), "SyntaxError"),
    ({"predict": "ctypes.string_at(0)"}, CANARY, "it lost a worker"),
    ({"predict": "os.kill(os.getpid(), signal.SIGKILL)"}, CANARY, "it lost a worker"),
    ({"predict": "1 / (random.random() > 0.1)"}, CANARY, "requests ("),
    ({"predict": "time.sleep(0.01)"}, CANARY, "its requests take longer"),
    ({"module": "import pydantic"}, (), "no module `pydantic`"),
    ({"requirements": "--no-index\nno-such-package\n"}, (), "requirements"),
]
RATE = 100
LIMIT_S = 10


async def run(args):
    rounds = 1 if args.quick else 3
    tally = http1.Tally()
    unnamed, took = [], []
    async with Server(
        PROGRAM, {"model.py": MODEL.format(**PARTS), "requirements.txt": ""}
    ) as server:
        client = http1.Client(server.port)

        async def call(number):
            right = f"{2 * number}".encode().__eq__
            await client.call(tally, "/double", number, right, LIMIT_S)

        done = asyncio.create_task(sabotage_all(server, rounds, unnamed, took))
        number = 2
        while not done.done():
            await http1.open_loop(RATE, 1, lambda at, _, n=number: call(n + at))
            number += RATE
        await done
        client.close()
    return [
        *tally.lines("during"),
        report.figure("sabotaged generations", rounds * len(KINDS)),
        report.at_most("that were not named or went live", len(unnamed), 0),
        *(report.figure("not named", each) for each in unnamed),
        report.at_most("requests that failed", tally.failed + tally.outcomes["hung"], 0),
        report.at_most("longest time until a canary was rolled back, s", max(took), 5 + 2),
    ]


async def sabotage_all(server, rounds, unnamed, took):
    for turn in range(rounds * len(KINDS)):
        parts, args, reason = KINDS[turn % len(KINDS)]
        requirements = parts.get("requirements", "")
        write(server.folder / "requirements.txt", requirements, turn)
        write(server.folder / "model.py", MODEL.format(**(PARTS | parts)), turn)
        begun = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            BIN / "litplex", "reload", "/double", "--port", str(server.port), *args,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=os.environ,
        )  # fmt: skip
        _, error = await process.communicate()
        if args == CANARY:
            took.append(time.monotonic() - begun)
        if process.returncode != 1 or reason not in error.decode():
            unnamed.append(f"{parts}: {error.decode()}")


def write(path, text, turn):
    path.write_text(text)
    # Python compares the whole seconds of the time and the size with those of its cache.
    later = time.time() + 10 * (turn + 1)
    os.utime(path, (later, later))
