"""The cost of the number of threads of each worker: one worker alone, and several at the same time.

A process for each worker computes as fast as it can. A policy says how many threads the library of
a worker gets, and how they wait for work. The workers of all policies are loaded first; then those
of one policy after the other compute for a short time, in several rounds, so that what else the
machine does meets all policies alike.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from models import MODELS

CORES = len(os.sched_getaffinity(0))
SHARE = max(1, CORES // 5)
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "BENCH_allow_spinning": "0"}

#: The number of threads, and the variables that say how they wait.
POLICIES = {
    "share": (SHARE, {}),
    "all": (CORES, {}),
    "passive": (CORES, PASSIVE),
    "spin1000": (CORES, {**PASSIVE, "GOMP_SPINCOUNT": "1000"}),
    "spin10000": (CORES, {**PASSIVE, "GOMP_SPINCOUNT": "10000"}),
}


def worker(name, threads):
    """Computes for as many seconds as each line of the input says; prints the calls in a second,
    the CPU time of one in ms, and their times in ms."""
    call = MODELS[name](threads)
    call()
    print("ready", flush=True)
    for line in sys.stdin:
        cpu, start = time.process_time(), time.perf_counter()
        times, now, end = [], start, start + float(line)
        while now < end:
            before = now
            call()
            now = time.perf_counter()
            times.append(1000 * (now - before))
        cpu = 1000 * (time.process_time() - cpu) / len(times)
        print(len(times) / (now - start), cpu, *times, flush=True)


def start(name, policy):
    threads, waits = POLICIES[policy]
    variables = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", name, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **variables, **waits},
    )


def compute(workers, seconds):
    """Returns the calls in a second of all, the CPU time of a call and the times of all calls."""
    for process in workers:
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
    said = [list(map(float, process.stdout.readline().split())) for process in workers]
    rates = [rate for rate, *_ in said]
    cpu = statistics.geometric_mean(cpu for _, cpu, *_ in said)
    return sum(rates), cpu, [one for _, _, *times in said for one in times]


def measure(names, policies, rounds, seconds):
    workers = {policy: [start(name, policy) for name in names] for policy in policies}
    try:
        for process in sum(workers.values(), []):
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"a model of {names} does not load")
        return [
            {policy: compute(workers[policy], seconds) for policy in policies}
            for _ in range(rounds)
        ]
    finally:
        for process in sum(workers.values(), []):
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", help=f"of {','.join(MODELS)}; `mix` is one of each")
    parser.add_argument("--policies", default="share,all,passive", help=", ".join(POLICIES))
    parser.add_argument("--workers", default="1,4", help="how many compute at the same time")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    args = parser.parse_args()
    policies = args.policies.split(",")
    print(f"{CORES} cores, a share of {SHARE}; medians of {args.rounds} rounds")
    print("| model | workers |" + "".join(f" {policy} |" for policy in policies))
    print("|---|---|" + "---|" * len(policies), flush=True)
    for name in args.models.split(","):
        for count in map(int, args.workers.split(",")):
            names = (list(MODELS) * count)[:count] if name == "mix" else [name] * count
            rounds = measure(names, policies, args.rounds, args.seconds)
            cells = "".join(f" {cell(rounds, policies[0], policy)} |" for policy in policies)
            print(f"| {name} | {count} |{cells}", flush=True)


def cell(rounds, base, policy):
    """Returns the rate, its ratio to that of `base`, the CPU time of a call and the 99th percentile."""
    rate, cpu = (statistics.median(it[policy][at] for it in rounds) for at in (0, 1))
    ratio = statistics.median(it[policy][0] / it[base][0] for it in rounds)
    times = sorted(time for it in rounds for time in it[policy][2])
    p99 = times[int(len(times) * 0.99)]
    return f"{rate:.1f}/s, x {ratio:.2f}, CPU {cpu:.0f} ms, p99 {p99:.0f} ms"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], int(sys.argv[3]))
    else:
        main()
