"""w1 with and without a scrape of `/metrics` every second, in turn on one server."""

import asyncio
from statistics import median
from urllib.request import urlopen

from harness.load import wrk_errors

from . import report, w1
from .http1 import beside

ROUNDS, SECONDS, CONNECTIONS = 7, 5, 64


async def run(args):
    rounds, seconds = (1, 2) if args.quick else (ROUNDS, SECONDS)
    alone, scraped, texts = [], [], []
    async with w1.serve() as server:
        await w1.wrk(server.port, CONNECTIONS, 2)
        for _ in range(rounds):
            alone.append(await w1.wrk(server.port, CONNECTIONS, seconds))
            async with beside(scrape(server.port, texts)):
                scraped.append(await w1.wrk(server.port, CONNECTIONS, seconds))
    ratios = [s["p99_ms"] / a["p99_ms"] for a, s in zip(alone, scraped, strict=True)]
    return [
        report.figure("p99 ms, alone", spread(alone)),
        report.figure("p99 ms, scraped", spread(scraped)),
        report.figure("times read", len(texts)),
        report.at_most("median of their ratios", median(ratios), 1.1),
        report.at_most("failed", sum(map(wrk_errors, alone + scraped)), 0),
        report.at_most("texts without a figure", sum(not has_figures(text) for text in texts), 0),
    ]


async def scrape(port, texts):
    while True:
        texts.append(await asyncio.to_thread(read, f"http://127.0.0.1:{port}/metrics"))
        await asyncio.sleep(1)


def read(url):
    with urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def has_figures(text):
    return "litplex_requests_total{" in text


def spread(results):
    values = [result["p99_ms"] for result in results]
    return f"{median(values):.3f} ({min(values):.3f}-{max(values):.3f})"
