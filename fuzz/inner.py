#!/usr/bin/env python3
"""Feeds the app host's HTTP client with answers that are damaged in random places.

Each damaged answer is read as h11 reads it, or ends with `BrokenOff`; the next request on the same
`Inner` gets its own answer, whatever was left of the first. What is fed depends on the seed alone.

    fuzz/inner.py [SECONDS] [SEED]     default: 15 seconds, seed 0
"""

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

import h11

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))
from litplex._apphost._inner import BrokenOff, Inner  # noqa: E402

#: How long an answer may take that has come whole, or whose connection has ended.
PATIENCE_SECONDS = 20
WELL = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"
SEEDS = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nfir\r\n2;x=y\r\nst\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\nx: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 1\r\n\r\n?",
    b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 204 No Content\r\nx: 1\r\n\r\n",
]
TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b"-", b"+", b"_", b"0", b"0x", b"f"),
    *(b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n"),
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 101 X\r\n\r\n",
        b"0\r\n\r\n",
        b"x: y\r\n",
        b"\r\n\r\n",
        WELL,
    ),
]


def damaged(chance: random.Random) -> bytes:
    """Returns an answer with up to four pieces cut out, repeated, exchanged or put in."""
    answer = chance.choice(SEEDS)
    for _ in range(chance.randrange(5)):
        at, other = sorted(chance.randrange(len(answer) + 1) for _ in range(2))
        cut = answer[at : min(other, at + 8)]
        middle = chance.choice([b"", cut * 2, chance.choice(TOKENS), chance.choice(TOKENS) + cut])
        answer = answer[:at] + middle + answer[at + len(cut) :]
    return answer if chance.random() < 0.9 else answer[: chance.randrange(len(answer) + 1)]


def as_h11_reads(answer: bytes) -> tuple[int, bytes] | None:
    """Returns the status and body of an answer; None where it is none, or not complete."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(answer)
    status, body = 0, b""
    with contextlib.suppress(h11.RemoteProtocolError):
        while (event := reader.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, body
    return None


class Server:
    """Answers the first request with the damaged answer, in pieces, and every other well."""

    def __init__(self) -> None:
        self.answer, self.size, self.ends = b"", 1, True
        self.asked = 0
        self.is_sent = asyncio.Event()

    async def serve(self, reader, writer):
        gone = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                if self.asked > 1:
                    writer.write(WELL)
                    continue
                try:
                    for start in range(0, len(self.answer), self.size):
                        writer.write(self.answer[start : start + self.size])
                        await writer.drain()
                        await asyncio.sleep(0)
                finally:
                    self.is_sent.set()
                if self.ends:
                    break
        writer.close()


async def ask(inner: Inner) -> tuple[int, bytes]:
    connection = await inner.connect()
    with contextlib.closing(connection):
        await connection.ask("GET", "/a", [], b"")
        status, _ = await connection.answer()
        return status, b"".join([piece async for piece, _ in connection.pieces()])


async def try_one(chance: random.Random, inner: Inner, server: Server) -> bool:
    """Returns whether the damaged answer was one all the same."""
    server.answer, server.size, server.asked = damaged(chance), chance.choice([1, 3, 1000]), 0
    right = as_h11_reads(server.answer)
    # What is not complete must end, or the client waits for the rest; h11 takes a line feed alone
    # for the end of a line, and litplex does not.
    has_odd_lines = b"\n" in server.answer.replace(b"\r\n", b"")
    server.ends = right is None or has_odd_lines or chance.random() < 0.3
    server.is_sent.clear()
    try:
        read = await asyncio.wait_for(ask(inner), PATIENCE_SECONDS)
    except BrokenOff:
        read = None
    if read is not None and read != right:
        raise AssertionError(f"{read}, and not {right}")
    if read is None and server.answer in SEEDS:
        raise AssertionError("what is well formed is refused")
    await server.is_sent.wait()
    second = await asyncio.wait_for(ask(inner), PATIENCE_SECONDS)
    if second != (200, b"second"):
        raise AssertionError(f"the next request was answered {second}")
    return read is not None


async def main(seconds: float, seed: int) -> None:
    chance, server, tried, well = random.Random(seed), Server(), 0, 0
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/inner.sock"
        listening = await asyncio.start_unix_server(server.serve, path)
        inner, end = Inner(path), time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                well += await try_one(chance, inner, server)
            except Exception:
                print(f"fuzz inner: seed {seed}, input {tried}: {server.answer!r}", file=sys.stderr)
                raise
            finally:
                inner.close()
            tried += 1
        listening.close()
    print(f"fuzz inner: {tried} inputs in {seconds:g} s, of which {well} were answers")


if __name__ == "__main__":
    given = [float(each) for each in sys.argv[1:3]]
    asyncio.run(main(given[0] if given else 15, int(given[1]) if len(given) > 1 else 0))
