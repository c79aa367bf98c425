"""w1 with keys, a rate limit, request ids, metrics and the access log, and bare, in turn."""

from statistics import median

from harness.load import wrk_errors

from . import report, w1

ROUNDS, SECONDS, CONNECTIONS = 5, 5, 64

# The rate limit is too high to refuse a request: the cost of its counter is measured.
POLICY = {
    "endpoint": 'api_keys=KEYS, rate_limit="1000000/s"',
    "server": 'request_id=True, access_log="access.log"',
}
BARE = {"server": "metrics_path=False"}


async def run(args):
    rounds, seconds = (1, 2) if args.quick else (ROUNDS, SECONDS)
    bare, policy = [], []
    for _ in range(rounds):
        bare.append(await measure(BARE, seconds))
        policy.append(await measure(POLICY, seconds))
    ratios = [p["rps"] / b["rps"] for b, p in zip(bare, policy, strict=True)]
    return [
        *rates("bare", bare),
        *rates("with policy", policy),
        report.figure("ratios", " ".join(f"{ratio:.3f}" for ratio in ratios)),
        report.at_least("their median", median(ratios), 0.85),
        report.at_most("failed", sum(map(wrk_errors, bare + policy)), 0),
    ]


async def measure(options, seconds):
    async with w1.serve(**options) as server:
        await w1.wrk(server.port, CONNECTIONS, 1)
        return await w1.wrk(server.port, CONNECTIONS, seconds)


def rates(name, results):
    yield report.figure(f"{name}, req/s", median(result["rps"] for result in results))
    yield report.figure(f"{name}, p99 ms", median(result["p99_ms"] for result in results))
