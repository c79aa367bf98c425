"""Markdown tables: all results of a day, and the ratios between systems that ran in turn."""

import json
import os
import platform
import statistics
from dataclasses import dataclass

from . import paths
from .runner import NOISE, noisy
from .workloads import WORKLOADS

TITLES = {
    "startup": "Startup and idle (noop)",
    "w1": "W1 noop, 64 connections (and 1)",
    "w1mw": "W1mw: W1 behind a Python middleware that adds X-Process-Time",
    "w2": "W2 batch 32 / 5 ms wait / 5 ms sleep, 256 connections (ideal 6400)",
    "w3": "W3 stream",
    "w4": "W4 two endpoints: /fast (16 conns) beside saturated /slow (64 conns)",
    "w5": "W5 1 MiB base64 JSON, 8 connections",
    "w5raw": "W5raw: W5's image, 768 KiB, as a raw body",
    "w5typed": "W5typed: W5 with a pydantic model that declares the field as base64",
    "w6": "W6 MiniLM-L6 embeddings, batch 16, 1 thread, 32 connections",
    "w6b1": "W6b1: W6 without batching (max_batch_size 1)",
    "w7": "W7 overload: W2's model, offered 3x the system's own capacity",
    "w7b": "W7b overload: batch 32 / 50 ms sleep (capacity 640/s), offered 1920/s",
    "w8": "W8 crash: 2 workers, 5 ms model, 150 req/s, 5 crashes in 11 s",
    "w9": "W9 relay: 10 KB to a model that calls another one, 64 connections (and 1)",
    "w9async": "W9async: W9 with an async hook that awaits the call",
    "w9hop": "W9hop: W9 without the call",
}
ORDER = ["litplex", "litplex-plain", "litplex-rust", "floor", "floor-nolimit"]
ORDER += ["mosec", "litserve", "fastapi-uvicorn"]

LATENCY = {"p50_ms": "p50 ms", "p99_ms": "p99 ms"}
COST = {
    "cpu_s_per_1k": "CPU s/1k",
    "server_cores": "server cores",
    "client_cores": "wrk cores",
    "peak_rss_mb": "peak RSS MB",
    "errors": "errors",
}
W1 = {
    "rps": "req/s c64",
    **LATENCY,
    "c1_rps": "req/s c1",
    "c1_p50_ms": "p50 c1",
    "c1_p99_ms": "p99 c1",
    **COST,
}
OVERLOAD = {
    "capacity_rps": "capacity",
    "rate": "offered/s",
    "goodput_rps": "goodput/s (<1 s)",
    "late": "late 1-2 s",
    "shed": "shed 429/503",
    "timeouts": "timeouts",
    "client_unsent": "unsent",
    "errors": "other errors",
    "p50_ms": "p50 ok",
    "p99_ms": "p99 ok",
    "shed_p50_ms": "p50 shed",
    "recovery_s": "recovery s",
    "rss_before_mb": "RSS before",
    "rss_after_mb": "RSS after",
    "wrong": "wrong",
}
COLUMNS = {
    "startup": {
        "ready_s": "first 200, s",
        "idle_rss_mb": "idle RSS sum, MB",
        "idle_pss_mb": "idle PSS, MB",
        "idle_cpu_pct": "idle CPU %",
        "procs": "procs",
        "threads": "threads",
    },
    "w1": W1,
    "w1mw": W1,
    "w2": {"rps": "req/s", **LATENCY, **COST},
    "w3": {
        "tokens_s": "tok/s 1x10k",
        "ttft_ms": "TTFT ms",
        "http_chunks": "HTTP chunks/10k",
        "c32_tokens_s": "tok/s 32x1k",
        "c32_ttft_p50_ms": "TTFT p50",
        "c32_ttft_max_ms": "TTFT max",
        "complete": "complete",
        "cpu_s_per_1k_tokens": "CPU s/1k tok",
        "errors": "errors",
    },
    "w4": {
        "alone_rps": "fast alone req/s",
        "alone_p50_ms": "p50",
        "alone_p99_ms": "p99",
        "rps": "fast beside slow req/s",
        "p50_ms": "p50",
        "p99_ms": "p99",
        "max_ms": "max",
        "slow_rps": "slow req/s (ideal 20)",
        "errors": "fast errors",
        "slow_errors": "slow errors",
    },
    "w5": {"rps": "req/s", "mb_s": "MB/s", **LATENCY, **COST},
    "w5typed": {"rps": "req/s", "mb_s": "MB/s", **LATENCY, **COST},
    "w5raw": {"rps": "req/s", "mb_s": "MB/s", **LATENCY, **COST},
    "w6": {"rps": "req/s", **LATENCY, **COST},
    "w6b1": {"rps": "req/s", **LATENCY, **COST},
    "w7": OVERLOAD,
    "w7b": OVERLOAD,
    "w9": W1,
    "w9async": W1,
    "w9hop": W1,
    "w8": {
        "offered": "good sent",
        "failed_good": "failed",
        "hung_good": "hung >5 s",
        "late": "late >1 s",
        "p50_ms": "p50 ok",
        "p99_ms": "p99 ok",
        "crash_outcome": "crashing callers got",
        "outage": "disruption per crash, s (median/max)",
        "survived": "survived",
        "procs_before": "procs before",
        "procs_after": "after",
    },
}


def order(system):
    return (ORDER.index(system) if system in ORDER else len(ORDER), system)


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value):
    if value is None:
        return "never"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def marks(results):
    """Notes on the validity of these runs."""
    if any(r.get("void") for r in results):
        return "**VOID**"
    if any(r.get("unclean") for r in results):
        return "(>1% errors)"
    if count := sum(map(noisy, results)):
        return "(noisy)" if count == len(results) else f"({count} noisy)"
    return ""


# ---- the table of all results of a day ----


def load_all(quick=False):
    """{(system, workload): results}, without noisy runs when there is a quiet one."""
    found = {}
    for file in sorted(paths.results_dir(quick).glob("*.*.*.json")):
        result = json.loads(file.read_text())
        found.setdefault((result["system"], result["workload"]), []).append(result)
    return {k: [r for r in v if not noisy(r)] or v for k, v in found.items()}


def cell(results, key):
    if key == "crash_outcome":
        return ", ".join(sorted({str(c[1]) for r in results for c in r["crashes"]}))
    if key == "outage":
        outages = [w["last_failure_s"] for r in results for w in r["windows"]]
        return f"{statistics.median(outages):.2f} / {max(outages):.2f}"
    values = [r.get(key) for r in results]
    numbers = [v for v in values if is_number(v)]
    if key == "shed_p50_ms" and not numbers:
        return "-"
    if len(numbers) == len(values):
        middle = statistics.median(numbers)
        is_count = all(isinstance(v, int) for v in numbers) and middle == int(middle)
        return number(int(middle) if is_count else middle)
    if len(set(map(str, values))) == 1:
        return number(values[0])
    return "/".join(map(number, values))


def table_row(system, results, columns):
    good = [r for r in results if "failed" not in r]
    if not good:
        return [system, 0, "failed: " + results[0]["failed"][:160]]
    return [f"{system} {marks(good)}".strip(), len(good), *(cell(good, key) for key in columns)]


def table():
    found = load_all()
    parts = []
    for workload in WORKLOADS:
        systems = sorted((s for s, w in found if w == workload), key=order)
        if not systems:
            continue
        columns = COLUMNS[workload]
        rows = [table_row(s, found[s, workload], columns) for s in systems]
        header = ["system", "n", *columns.values()]
        parts.append(f"### {TITLES[workload]}\n\n{markdown(header, rows)}")
    return "\n\n".join(parts)


# ---- the ratios of systems run in turn ----


@dataclass(frozen=True)
class Figure:
    """A figure that systems are compared by.

    `versus` says how: "base" as base / system, "floor" as system - floor, None not at all.
    """

    key: str
    name: str
    versus: str | None = "base"
    unit: str = "ms"  # of the difference to the floor
    scale: float = 1

    def heads(self, base):
        if self.versus == "base":
            return [self.name, f"{base} / it"]
        if self.versus == "floor":
            return [self.name, f"over floor, {self.unit}"]
        return [self.name]


MAIN = {
    "startup": [Figure("ready_s", "first 200, s"), Figure("idle_pss_mb", "idle PSS, MB")],
    "w1": [
        Figure("rps", "req/s c64"),
        Figure("c1_p50_ms", "p50 c1, ms", "floor", "µs", 1000),
        Figure("cpu_s_per_1k", "CPU s/1k"),
    ],
    "w2": [Figure("rps", "req/s"), Figure("p50_ms", "p50, ms", None)],
    "w3": [
        Figure("tokens_s", "tok/s 1x10k"),
        Figure("ttft_ms", "TTFT, ms", "floor"),
        Figure("c32_tokens_s", "tok/s 32x1k"),
        Figure("c32_ttft_p50_ms", "TTFT x32, ms", "floor"),
    ],
    "w4": [
        Figure("rps", "fast beside slow, req/s"),
        Figure("p99_ms", "its p99, ms", None),
        Figure("slow_rps", "slow req/s", None),
    ],
    "w5": [Figure("rps", "req/s"), Figure("p50_ms", "p50, ms", None)],
    "w6": [Figure("rps", "req/s"), Figure("p50_ms", "p50, ms", None)],
    "w7": [
        Figure("goodput_rps", "goodput/s"),
        Figure("capacity_rps", "capacity/s", None),
        Figure("shed", "shed", None),
        Figure("timeouts", "timeouts", None),
        Figure("recovery_s", "recovery, s", None),
    ],
    "w8": [
        Figure("failed_good", "failed", None),
        Figure("hung_good", "hung", None),
        Figure("p50_ms", "p50 ok, ms", None),
        Figure("survived", "survived", None),
    ],
}
MAIN["w9"] = [Figure("rps", "req/s c64"), Figure("c1_p50_ms", "p50 c1, ms", None)]
MAIN |= {
    "w9async": MAIN["w9"],
    "w9hop": MAIN["w9"],
    "w1mw": MAIN["w1"],
    "w5raw": MAIN["w5"],
    "w5typed": MAIN["w5"],
    "w6b1": MAIN["w6"],
    "w7b": MAIN["w7"],
}


def usable(results):
    return [r for r in results if not (r.keys() & {"failed", "skipped", "void"})]


def median(results, key):
    values = [r.get(key) for r in results]
    return statistics.median(values) if values and all(map(is_number, values)) else None


def ratio(base, other, key):
    """The ratio base / other of the medians and, with several rounds, its range over the rounds."""
    x, y = median(base, key), median(other, key)
    if x is None or not y:
        return "-"
    text = number(x / y)
    pairs = zip(base, other, strict=True) if len(base) == len(other) > 1 else ()
    rounds = [a[key] / b[key] for a, b in pairs if b[key]]
    return f"{text} ({number(min(rounds))}-{number(max(rounds))})" if rounds else text


def figure_cells(figure, results, base, floor):
    shown = cell(results, figure.key)
    if figure.versus == "base":
        return [shown, "" if results is base else ratio(base, results, figure.key)]
    if figure.versus == "floor":
        x, y = median(results, figure.key), median(floor, figure.key)
        known = x is not None and y is not None and results is not floor
        return [shown, f"{(x - y) * figure.scale:,.2f}" if known else ""]
    return [shown]


def ratio_row(system, runs, good, base, floor, figures):
    results = good[system]
    if not results:
        run = runs[system][0]
        reason = run.get("skipped") or run.get("failed") or "wrong answers"
        return [system, 0, f"no figures: {reason[:160]}"]
    cells = [c for f in figures for c in figure_cells(f, results, base, floor)]
    return [f"{system} {marks(runs[system])}".strip(), len(results), *cells]


def ratios(workload, runs, base):
    """The markdown of one workload; `runs` is {system: results of each round}."""
    good = {system: usable(results) for system, results in runs.items()}
    figures = MAIN[workload]
    floor = good.get("floor", [])
    rows = [ratio_row(s, runs, good, good[base], floor, figures) for s in runs]
    header = ["system", "runs", *(head for f in figures for head in f.heads(base))]
    notes = []
    if any(noisy(r) for results in runs.values() for r in results):
        notes = [f"noisy: others used, or the host stole, more than {NOISE} cores meanwhile."]
    return "\n\n".join([f"### {TITLES[workload]}", markdown(header, rows), *notes])


# ---- every system beside the others ----

PEERS = {
    "c1_p50_ms": "p50 at 1 connection, ms",
    "c1_p99_ms": "p99, ms",
    "rps": "req/s, 64 connections",
    "cpu_us": "µs of CPU a request",
    "idle_pss_mb": "idle PSS, MB",
    "procs": "processes",
    "ready_s": "first answer, s",
    "errors": "errors",
}


def machine():
    with open("/proc/cpuinfo") as f:
        model = next(line.split(":")[1].strip() for line in f if line.startswith("model name"))
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}"


def peers(quick=False):
    """The table of the results of `./peers`, then the machine and the versions."""
    found = {system: r for (system, workload), r in load_all(quick).items() if workload == "peers"}
    for result in (r for results in found.values() for r in results if "rps" in r):
        result["cpu_us"] = round(result["cpu_s_per_1k"] * 1000, 1)
    rate = {s: median(usable(results), "rps") or 0 for s, results in found.items()}
    systems = sorted(found, key=rate.get, reverse=True)
    rows = [table_row(s, found[s], PEERS) for s in systems]
    parts = [
        markdown(["system", "n", *PEERS.values()], rows),
        f"{paths.results_dir(quick).name}; {machine()}",
    ]
    parts.append("\n".join(f"- {s}: {found[s][-1]['version']}" for s in systems))
    return "\n\n".join(parts)
