"""A small HTTP/1.1 client, and loads that consist of its calls."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from typing import NamedTuple

from .report import figure, milliseconds, percentile

BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError)


class Answer(NamedTuple):
    status: int
    headers: dict
    body: bytes


class Connection:
    """One connection: it sends a request, then reads the response or drops the connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.reusable = True

    @classmethod
    async def open(cls, port):
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def send(self, path, body, content_type="application/json"):
        self.writer.write(request(path, body, content_type))
        await self.writer.drain()

    async def head(self):
        """Reads the status line and the headers."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":")[::2] for line in lines if line)
        headers = {name.lower(): value.strip() for name, value in pairs}
        self.reusable = headers.get("connection", "").lower() != "close"
        return int(first.split()[1]), headers

    async def pieces(self, headers):
        """Reads the body in the pieces in which it arrives."""
        if headers.get("transfer-encoding") != "chunked":
            yield await self.reader.readexactly(int(headers.get("content-length", 0)))
            return
        while length := int(await self.reader.readuntil(b"\r\n"), 16):
            yield (await self.reader.readexactly(length + 2))[:-2]
        await self.reader.readexactly(2)

    async def answer(self):
        status, headers = await self.head()
        return Answer(status, headers, b"".join([p async for p in self.pieces(headers)]))

    def drop(self):
        self.writer.transport.abort()


def request(path, body, content_type="application/json"):
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Tally:
    """The outcomes of calls, and the time of successful ones from when they were due."""

    def __init__(self):
        self.outcomes = Counter()
        self.seconds = []

    @property
    def failed(self):
        return sum(n for outcome, n in self.outcomes.items() if outcome not in ("ok", "hung"))

    def lines(self, name):
        shown = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
        return [
            figure(f"{name}: calls", shown or "none"),
            *(
                figure(f"{name}: p{100 * p:g}, ms", milliseconds(percentile(self.seconds, p)))
                for p in (0.5, 0.99, 1)
            ),
        ]


class Client:
    """A pool of idle connections that records the outcome of each call in a tally."""

    def __init__(self, port, max_idle=64):
        self.port, self.max_idle = port, max_idle
        self.idle = []

    def close(self):
        while self.idle:
            self.idle.pop().drop()

    async def connection(self):
        while self.idle:
            connection = self.idle.pop()
            if not connection.reader.at_eof():
                return connection
            connection.drop()
        return await Connection.open(self.port)

    async def ask(self, path, body, content_type="application/json"):
        connection = await self.connection()
        try:
            await connection.send(path, body, content_type)
            answer = await connection.answer()
        except BaseException:
            connection.drop()
            raise
        if connection.reusable and len(self.idle) < self.max_idle:
            self.idle.append(connection)
        else:
            connection.drop()
        return answer

    async def call(self, tally, path, value, right, limit_s, due=None, **raw):
        """Sends a request. Returns the outcome: "ok", "wrong", "broken", "hung" or the status."""
        due = due or time.monotonic()
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        outcome = await self._outcome(path, body, right, limit_s, **raw)
        tally.outcomes[outcome] += 1
        if outcome == "ok":
            tally.seconds.append(time.monotonic() - due)
        return outcome

    async def _outcome(self, path, body, right, limit_s, **raw):
        try:
            answer = await asyncio.wait_for(self.ask(path, body, **raw), limit_s)
        except asyncio.TimeoutError:
            return "hung"
        except BROKEN:
            return "broken"
        if answer.status != 200:
            return str(answer.status)
        return "ok" if right(answer.body) else "wrong"


async def open_loop(rate, seconds, call):
    """Starts `call(number, due)` at a constant rate for a time; returns when all have ended."""
    start, tasks = time.monotonic(), set()
    for number in range(int(rate * seconds)):
        due = start + number / rate
        if (early := due - time.monotonic()) > 0:
            await asyncio.sleep(early)
        task = asyncio.create_task(call(number, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def closed_loop(callers, count, call):
    """Makes `count` calls of `call(number)`, with a limit of concurrent ones."""
    numbers = iter(range(count))

    async def caller():
        for number in numbers:
            await call(number)

    await asyncio.gather(*(caller() for _ in range(callers)))


async def wait_until(condition, limit_s, every_s=0.02):
    """Waits until the condition holds; returns the seconds it took, or None after a timeout."""
    start = time.monotonic()
    while time.monotonic() - start < limit_s:
        if await condition():
            return round(time.monotonic() - start, 3)
        await asyncio.sleep(every_s)
    return None


@contextlib.asynccontextmanager
async def beside(*coroutines):
    """Runs these coroutines during the block and cancels them at its end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
