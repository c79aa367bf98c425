"""Clients that mean harm: what each shape makes the server hold, and does to another endpoint.

Every attack is bounded in bytes and time, and goes to a server of its own on loopback.
"""

import asyncio
import contextlib
import gzip
import itertools
import json
import os
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from statistics import median

from . import http1, report
from .process import Server

BUDGET = 64_000_000
SLACK_MB = 64
SECONDS = 6

PROGRAM = f"""
    class Square(ls.LitAPI):
        def predict(self, x):
            return x * x

    class Take(ls.LitAPI):
        def predict(self, x):
            return 1

    class Pour(ls.LitAPI):
        def predict(self, x):
            for _ in range(1000):
                yield b"y" * 65_536

    class Embed(ls.LitAPI):
        def predict(self, texts):
            return [{{"embeddings": [[1.0]]}} for _ in texts]

        def batch(self, texts):
            return texts

        def unbatch(self, given):
            return given

        def encode_response(self, given):
            return given

    if __name__ == "__main__":
        embed = Embed(spec=ls.OpenAIEmbeddingSpec(), max_batch_size=8)
        ls.run_servers(
            ls.LitServer(Square(), path="/square", accelerator="cpu"),
            ls.LitServer(Take(), path="/take", accelerator="cpu"),
            ls.LitServer(Pour(stream=True), path="/pour", accelerator="cpu"),
            ls.LitServer(embed, accelerator="cpu"),
            port=0,
            max_buffered_bytes={BUDGET},
        )
"""


class Attack:
    """Sockets that are kept open, and the time at which sending must end."""

    def __init__(self, port, seconds):
        self.port, self.end = port, time.monotonic() + seconds
        self.sockets = []

    def connect(self):
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=2)
        self.sockets.append(sock)
        return sock

    def begin(self, path, *headers, body=b""):
        """Sends the beginning of a request on a new connection."""
        sock = self.connect()
        lines = [f"POST {path} HTTP/1.1", "Host: a", *headers, "", ""]
        self.send(sock, "\r\n".join(lines).encode() + body)
        return sock

    def send(self, sock, data):
        """Sends as much as the server accepts in time; a refused request loses its connection."""
        with contextlib.suppress(OSError):
            sock.sendall(data)

    def send_long(self, sock, data, times):
        for _ in range(times):
            if time.monotonic() > self.end:
                return
            self.send(sock, data)

    def hold(self):
        """Keeps all connections open until the end."""
        time.sleep(max(0, self.end - time.monotonic()))

    def whole(self, path, body, *headers):
        """Sends one request again and again, each on its own connection."""
        while time.monotonic() < self.end:
            sock = self.begin(path, f"Content-Length: {len(body)}", *headers, body=body)
            with contextlib.suppress(OSError):
                sock.recv(65_536)


def chunks(attack):
    """Bodies in chunks of one byte."""
    socks = [attack.begin("/take", "Transfer-Encoding: chunked") for _ in range(8)]
    for sock in itertools.cycle(socks):
        if time.monotonic() > attack.end:
            return
        attack.send(sock, b"1\r\n1\r\n" * 20_000)


def announced(attack):
    """Bodies that are announced and never sent."""
    for _ in range(64):
        attack.begin("/take", f"Content-Length: {1 << 26}")
    attack.hold()


def slow(attack):
    """Large bodies that stop before their end."""
    for _ in range(16):
        sock = attack.begin("/take", "Content-Length: 20000000")
        attack.send_long(sock, b"1" * 100_000, 150)
    attack.hold()


def frame(kind, flags, stream, payload=b""):
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def literal(name, value):
    """Returns the encoding of an HTTP/2 header."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def multiplexed(attack, path, window):
    """Opens a connection of HTTP/2 whose streams have this window, and returns what opens one."""
    sock = attack.connect()
    setting = b"\0\4" + window.to_bytes(4, "big")
    attack.send(sock, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, setting))
    fields = ((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a"))
    head = b"".join(literal(*field) for field in fields)
    return sock, lambda stream: attack.send(sock, frame(1, 4, stream, head))


def streams(attack):
    """HTTP/2: connections with many bodies that do not end."""
    for _ in range(40):
        sock, open_stream = multiplexed(attack, "/take", 65_535)
        for stream in range(1, 381, 2):
            open_stream(stream)
            attack.send(sock, frame(0, 0, stream, b"1" * 1200))
    attack.hold()


def windows(attack):
    """HTTP/2: clients that never read the responses."""
    for _ in range(20):
        sock, open_stream = multiplexed(attack, "/pour", 0)
        for stream in range(1, 41, 2):
            open_stream(stream)
            attack.send(sock, frame(0, 1, stream, b"1"))
    attack.hold()


def unread(attack):
    """HTTP/1.1: clients that read nothing of a stream."""
    for _ in range(100):
        attack.begin("/pour", "Content-Length: 1", body=b"1")
    attack.hold()


def headers(attack):
    """Requests of endless headers."""
    for _ in range(200):
        attack.begin("/take", *(f"x-{n}: {'a' * 500}" for n in range(90)), "x-cut: a")
        attack.send(attack.connect(), b"GET / HTTP/1.1\r\n" + b"x: a\r\n" * 9000)
    attack.hold()


def parts(attack):
    """Forms of very many parts."""
    part = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
    body = part * 100_000 + b"--b--"
    attack.whole("/take", body, "Content-Type: multipart/form-data; boundary=b")


def deep(attack):
    """Endlessly nested JSON."""
    attack.whole("/v1/embeddings", b'{"input":' + b"[" * 1_000_000)


def wide(attack):
    """JSON with very many small values."""
    body = b'{"input":[' + b",".join([b"[1,2]"] * 1_000_000) + b"]}"
    attack.whole("/v1/embeddings", body)


def bombs(attack):
    """Compressed bodies that expand a thousand times."""
    body = gzip.compress(gzip.compress(b"1" * 1_000_000_000, 1), 9)
    attack.whole("/take", body, "Content-Encoding: gzip, gzip")
    attack.hold()


def embeddings(attack):
    """A request that expands to very many, each with all other fields."""
    body = json.dumps({"user": "u" * 400_000, "input": ["a"] * 40_000}).encode()
    attack.whole("/v1/embeddings", body)


ATTACKS = [
    chunks, announced, slow, streams, windows, unread,
    headers, parts, deep, wide, bombs, embeddings,
]  # fmt: skip


def carry_out(name, port, seconds):
    attack = Attack(port, seconds)
    try:
        next(each for each in ATTACKS if each.__name__ == name)(attack)
    finally:
        for sock in attack.sockets:
            sock.close()


async def run(args):
    seconds = 3 if args.quick else SECONDS
    lines = [await beside_busy_cores(seconds)]
    # A hostile client has cores of its own: it must not take those of the server.
    with ProcessPoolExecutor(1, initializer=os.nice, initargs=(19,)) as pool:
        for attack in ATTACKS:
            async with Server(PROGRAM) as server:
                lines += await measure(pool, server, attack.__name__, seconds)
    return lines


def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def beside_busy_cores(seconds):
    """Returns what the other endpoint's p99 becomes when unrelated processes use every core.

    An attack from the same machine cannot do better where it keeps all cores busy.
    """
    cores = len(os.sched_getaffinity(0))
    async with Server(PROGRAM) as server:
        await probe(server, time.monotonic() + 1)
        alone, _, _ = await probe(server, time.monotonic() + seconds)
        with ProcessPoolExecutor(cores) as pool:
            busy = [pool.submit(compute, seconds) for _ in range(cores)]
            during, _, _ = await probe(server, time.monotonic() + seconds * 0.9)
            for each in busy:
                each.result()
    ratio = percentile(during) / percentile(alone)
    return report.figure(f"no attack, {cores} busy cores: p99 / alone", ratio)


async def measure(pool, server, name, seconds):
    """Returns the server's memory, and the latency of another endpoint without and with load."""
    await probe(server, time.monotonic() + 1)
    alone, _, _ = await probe(server, time.monotonic() + seconds)
    loop = asyncio.get_running_loop()
    attack = loop.run_in_executor(pool, carry_out, name, server.port, seconds)
    during, rss, failed = await probe(server, time.monotonic() + seconds)
    # Work that ignores the deadline, such as the generation of a body, is waited for.
    await attack
    limit = BUDGET / 1e6 + SLACK_MB
    return [
        report.at_most(f"{name}: RSS, MB", rss, limit),
        report.figure(f"{name}: p99 ms, alone", round(percentile(alone) * 1e3, 2)),
        report.at_most(f"{name}: p99 / alone", percentile(during) / percentile(alone), 2),
        report.figure(f"{name}: median ms", round(median(during) * 1e3, 2)),
        report.at_most(f"{name}: failed", failed, 0),
    ]


def percentile(times):
    return sorted(times)[int(len(times) * 0.99)]


async def probe(server, end):
    """Sends requests to the innocent endpoint; returns their times, the peak RSS, and failures."""
    times, rss, failed = [], 0, 0
    connection = await http1.Connection.open(server.port)
    looked = 0
    while time.monotonic() < end:
        began = time.monotonic()
        await connection.send("/square", b"3")
        answer = await connection.answer()
        times.append(time.monotonic() - began)
        failed += answer.body != b"9"
        if began - looked > 0.05:
            looked, rss = began, max(rss, server.usage().rss_mb)
        await asyncio.sleep(0.002)
    connection.drop()
    return times, rss, failed
