"""The first token of a stream through three stages, and a request through a pipeline."""

import json
import time
from statistics import median

from . import http1, report
from .process import Server

ROUNDS = 9
COUNT = 200  # requests of each path and round

PROGRAM = """
    class Tokens(ls.LitAPI):
        def predict(self, n):
            yield from range(n)

    class Relay(ls.LitAPI):
        def __init__(self, following, **options):
            super().__init__(**options)
            self.following = ls.endpoint(following)
        def predict(self, n):
            yield from self.following.stream(n)

    class AsyncRelay(Relay):
        async def predict(self, n):
            async for token in self.following.astream(n):
                yield token

    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    class Call(Relay):
        def predict(self, x):
            return self.following(x)

    if __name__ == "__main__":
        def serve(api, path):
            return ls.LitServer(api, path=path, accelerator="cpu")

        ls.run_servers(
            serve(Tokens(stream=True), "/tokens"),
            serve(Relay("/tokens", stream=True), "/second"),
            serve(Relay("/second", stream=True), "/hooks"),
            serve(AsyncRelay("/tokens", stream=True), "/async-second"),
            serve(AsyncRelay("/async-second", stream=True), "/async-hooks"),
            serve(Echo(), "/echo"),
            serve(Echo(), "/other"),
            serve(Call("/echo"), "/call"),
            ls.LitServer(ls.Pipeline("/echo", "/other", "/tokens"), path="/graph"),
            ls.LitServer(ls.Pipeline("/tokens"), path="/tokens-graph"),
            ls.LitServer(ls.Pipeline("/echo"), path="/echo-graph"),
            ls.LitServer(ls.Pipeline("/echo", "/other", "/echo"), path="/echoes-graph"),
            port=0,
        )
"""
TOKENS = 5


async def run(args):
    rounds = 3 if args.quick else ROUNDS
    streams = ["/tokens", "/hooks", "/async-hooks", "/tokens-graph", "/graph"]
    whole = ["/echo", "/call", "/echo-graph", "/echoes-graph"]
    taken = {path: [] for path in streams + whole}
    async with Server(PROGRAM) as server:
        for number in range(rounds + 1):
            for path in streams:
                taken[path].append(await first_token(server.port, path))
            for path in whole:
                taken[path].append(await answer(server.port, path))
            if number == 0:
                taken = {path: [] for path in taken}
    ms = {path: 1000 * median(rounds) for path, rounds in taken.items()}
    return [
        *(report.figure(f"{path}: first token, ms", ms[path]) for path in streams),
        report.at_most("hooks: more than the model alone, ms", ms["/hooks"] - ms["/tokens"], 1),
        report.at_most("async hooks: more, ms", ms["/async-hooks"] - ms["/tokens"], 1),
        report.at_most("pipeline of the model: more, ms", ms["/tokens-graph"] - ms["/tokens"], 1),
        report.at_most("pipeline of three stages: more, ms", ms["/graph"] - ms["/tokens"], 1),
        *(report.figure(f"{path}: response, ms", ms[path]) for path in whole),
        report.figure("a call: more than without, ms", ms["/call"] - ms["/echo"]),
        report.figure("a pipeline: more than without, ms", ms["/echo-graph"] - ms["/echo"]),
    ]


async def first_token(port, path):
    """Returns the median time from a request to the first item of its stream, of one connection."""
    connection, seconds = await http1.Connection.open(port), []
    for _ in range(COUNT):
        begun = time.perf_counter()
        await connection.send(path, b"%d" % TOKENS)
        _, headers = await connection.head()
        pieces = [piece async for piece in timed(connection.pieces(headers), begun, seconds)]
        if b"".join(pieces).split() != [b"%d" % token for token in range(TOKENS)]:
            raise RuntimeError(f"{path}: unexpected {pieces}")
    connection.drop()
    return median(seconds)


async def timed(pieces, begun, seconds):
    """Passes the pieces on, and notes the time of the first."""
    is_first = True
    async for piece in pieces:
        if is_first:
            seconds.append(time.perf_counter() - begun)
            is_first = False
        yield piece


async def answer(port, path):
    """Returns the median time of a request, of one connection."""
    connection, seconds = await http1.Connection.open(port), []
    body = json.dumps("x" * 100).encode()
    for _ in range(COUNT):
        begun = time.perf_counter()
        await connection.send(path, body)
        got = await connection.answer()
        seconds.append(time.perf_counter() - begun)
        if got.body != body:
            raise RuntimeError(f"{path}: unexpected {got}")
    connection.drop()
    return median(seconds)
