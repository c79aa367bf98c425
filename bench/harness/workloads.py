"""The workloads: each loads a running server and returns its figures."""

import statistics
import time
from dataclasses import dataclass

from .checks import Check, SideCheck
from .load import loadgen, wrk, wrk_end, wrk_errors, wrk_start
from .processes import Cpu, Server, box_cpu, memory_mb, own_cpu, tree


@dataclass(frozen=True)
class Scale:
    """The durations and repetitions of measurements."""

    windows: int = 3  # measured windows of one run
    secs: int = 3  # length of a window
    embed_secs: int = 4  # ... in w6
    streams: int = 3  # repeats of each stream measurement
    overload_secs: int = 10
    starts: int = 3
    idle_secs: int = 5
    quiet_s: float = 90  # longest wait for a quiet box before a run
    quick: bool = False  # a trial: kept apart from real runs


FULL = Scale()
QUICK = Scale(
    windows=1,
    secs=2,
    embed_secs=2,
    streams=1,
    overload_secs=5,
    starts=1,
    idle_secs=2,
    quiet_s=3,
    quick=True,
)


def warm(server, conns, secs=1.5):
    """A closed loop with a different input in every request and a check of every response."""
    result = loadgen(server, "closed", conns=conns, secs=secs)
    if result["wrong"]:
        raise RuntimeError(f"wrong answers: {result}")
    keys = ("rps", "p50_ms", "p99_ms", "ok", "wrong", "status", "errors")
    return {k: result[k] for k in keys}


def windows(server, conns, secs, count):
    """Returns medians and CPU use over `count` windows of wrk beside one check."""
    check, cpu = SideCheck(server), Cpu()
    runs = [wrk(server, conns, secs) for _ in range(count)]
    cpu.stop()
    checked = check.stop()
    total = sum(w["requests"] - w["non2xx"] for w in runs)
    errors = sum(map(wrk_errors, runs))
    medians = {
        key: round(statistics.median(w[key] for w in runs), 3)
        for key in ("rps", "p50_ms", "p99_ms", "max_ms")
    }
    return {
        **medians,
        "rps_min": min(w["rps"] for w in runs),
        "rps_max": max(w["rps"] for w in runs),
        "errors": errors,
        "error_share": round(errors / max(1, total + errors), 4),
        **checked,
        "cpu_s_per_1k": round(cpu.server / max(total, 1) * 1000, 4),
        **cpu.cores(),
        "windows": runs,
    }


def w1(server, scale):
    verified = warm(server, 64)
    many = windows(server, 64, scale.secs, scale.windows)
    one = wrk(server, 1, scale.secs)
    alone = {f"c1_{key}": one[key] for key in ("rps", "p50_ms", "p99_ms")}
    return {**many, **alone, "verified": verified}


def w2(server, scale):
    verified = warm(server, 256)
    return {**windows(server, 256, scale.secs, scale.windows), "verified": verified}


def w3(server, scale):
    whole = Cpu()
    one, cpu = _one_stream(server, scale)
    many = _many_streams(server, scale)
    whole.stop()
    runs = one + many

    def median(results, key):
        return statistics.median(r[key] or 0 for r in results)

    tokens = sum(r["tokens"] for r in one)
    complete, clients = sum(r["complete"] for r in many), sum(r["clients"] for r in many)
    return {
        "tokens_s": round(median(one, "tokens_s")),
        "ttft_ms": median(one, "ttft_p50_ms"),
        "c32_tokens_s": round(median(many, "tokens_s")),
        "c32_ttft_p50_ms": median(many, "ttft_p50_ms"),
        "c32_ttft_max_ms": median(many, "ttft_max_ms"),
        "http_chunks": one[0]["http_chunks"],
        "complete": f"{complete}/{clients}",
        "wrong": sum(r["wrong"] for r in runs),
        "errors": sum(sum(r["errors"].values()) for r in runs),
        "cpu_s_per_1k_tokens": round(cpu.server / max(1, tokens) * 1000, 4),
        **whole.cores(),
        "one": one,
        "many": many,
    }


def _one_stream(server, scale):
    cpu, runs = Cpu(), []
    for _ in range(scale.streams):
        runs.append(loadgen(server, "stream", clients=1, chunks=10000, limit=12))
        if runs[-1]["wall_s"] > 4 or runs[-1]["errors"]:
            break
    return runs, cpu.stop()


def _many_streams(server, scale):
    def once():
        return loadgen(server, "stream", clients=32, chunks=1000, limit=18)

    runs = [once()]
    if runs[0]["wall_s"] < 3 and not runs[0]["errors"]:
        runs += [once() for _ in range(scale.streams - 1)]
    return runs


def w4(server, scale):
    warm(server, 16, 1)
    alone = windows(server, 16, scale.secs, 1)
    slow_secs = scale.secs * scale.windows + 2
    background = wrk_start(server, 64, slow_secs, path="/slow")
    time.sleep(1.2)
    beside = windows(server, 16, scale.secs, scale.windows)
    slow = wrk_end(background, slow_secs + 1)
    return {
        **beside,
        **{f"alone_{key}": alone[key] for key in ("rps", "p50_ms", "p99_ms")},
        "slow_rps": slow["rps"],
        "slow_p50_ms": slow["p50_ms"],
        "slow_errors": wrk_errors(slow),
        "slow": slow,
    }


def w5(server, scale):
    wrk(server, 8, 1)
    result = windows(server, 8, scale.secs, scale.windows)
    return {**result, "mb_s": round(result["rps"] * 1.048576, 1)}


def w5raw(server, scale):
    wrk(server, 8, 1)
    result = windows(server, 8, scale.secs, scale.windows)
    return {**result, "mb_s": round(result["rps"] * 0.786432, 1)}


def w6(server, scale):
    wrk(server, 32, 2)
    return windows(server, 32, scale.embed_secs, scale.windows)


def w7(server, scale):
    verified = warm(server, 256, 2)
    capacity = {"capacity_rps": round(verified["rps"]), "verified": verified}
    return {**capacity, **_overload(server, scale, min(3 * verified["rps"], 20000))}


def w7b(server, scale):
    capacity = {"capacity_rps": 640, "verified": warm(server, 64, 1.5)}
    return {**capacity, **_overload(server, scale, 1920)}


def _overload(server, scale, rate):
    rss_before, cpu = memory_mb(tree()), Cpu()
    result = loadgen(server, "open", rate=round(rate), secs=scale.overload_secs, timeout=2)
    cpu.stop()
    return {
        **result,
        "rss_before_mb": rss_before,
        "rss_after_mb": memory_mb(tree()),
        "hwm_mb": memory_mb(tree(), "VmHWM"),
        "errors": sum(result["errors"].values()) + sum(result["other_status"].values()),
        "conn_errors": result["errors"],
        "rate": round(rate),
        **cpu.cores(),
    }


def w8(server, scale):
    warm(server, 4, 1)
    before = len(tree())
    load = {"rate": 150, "secs": 11, "timeout": 5, "at": "1,3,5,7,9"}
    result = loadgen(server, "crash", **load, max_conns=2048, recover=8)
    alive = server.alive()
    after = loadgen(server, "closed", conns=4, secs=1) if alive else {"ok": 0}
    hung = result["timeouts"] + result["client_unsent"]
    answered = result["good"] + result["late"]
    return {
        **result,
        "failed_good": result["offered"] - answered - hung,
        "hung_good": hung,
        "survived": bool(alive and after["ok"] > 20),
        "procs_before": before,
        "procs_after": len(tree()),
        "after": after,
        "errors_by_kind": result["errors"],
        "errors": sum(result["errors"].values()),
    }


def w9(server, scale):
    wrk(server, 64, 1)
    many = windows(server, 64, scale.secs, scale.windows)
    one = wrk(server, 1, scale.secs)
    return {**many, **{f"c1_{key}": one[key] for key in ("rps", "p50_ms", "p99_ms")}}


LOADS = {"w1": w1, "w1mw": w1, "w2": w2, "w3": w3, "w4": w4, "w5": w5, "w5raw": w5raw}
LOADS |= {"w5typed": w5}
LOADS |= {"w6": w6, "w6b1": w6, "w7": w7, "w7b": w7b, "w8": w8}
LOADS |= {"w9": w9, "w9async": w9, "w9hop": w9}
WORKLOADS = ["startup", *LOADS]


def startup(system, scale):
    """Starts the server several times, and measures the last one while it idles."""
    ready, idle = [], {}
    start, box, ours = time.monotonic(), box_cpu(), own_cpu()
    for k in range(scale.starts):
        with Server(system, "w1") as server:
            server.wait_until_ready(Check(server))
            ready.append(round(server.ready_s, 3))
            if k == scale.starts - 1:
                idle = _idle(scale)
    wall, box_end = time.monotonic() - start, box_cpu()
    other = box_end[0] - box[0] - (own_cpu() - ours)
    return {
        "ready_s": statistics.median(ready),
        "ready_all_s": ready,
        **idle,
        "other_cores": round(max(0, other) / wall, 2),
        "steal_cores": round((box_end[1] - box[1]) / wall, 2),
        "errors": 0,
        "wrong": 0,
    }


def _idle(scale):
    time.sleep(2)
    cpu = Cpu()
    time.sleep(scale.idle_secs)
    cpu.stop()
    stats = tree()
    return {
        "idle_rss_mb": memory_mb(stats),
        "idle_pss_mb": memory_mb(stats, "Pss"),
        "idle_cpu_pct": round(cpu.server / cpu.wall * 100, 2),
        "procs": len(stats),
        "threads": sum(s.threads for s in stats.values()),
    }


def peer(system, scale):
    """One server launch of w1 with all figures of `./peers`."""
    with Server(system, "w1") as server:
        server.wait_until_ready(Check(server))
        time.sleep(1)
        stats = tree()
        result = {
            "ready_s": round(server.ready_s, 3),
            "idle_pss_mb": memory_mb(stats, "Pss"),
            "procs": len(stats),
            "verified": warm(server, 64, 1),
        }
        one = wrk(server, 1, scale.secs)
        many = windows(server, 64, scale.secs, 1)
        return {**result, **{f"c1_{key}": one[key] for key in ("p50_ms", "p99_ms")}, **many}


def load(system, workload, scale):
    """One server launch under one workload."""
    with Server(system, workload) as server:
        server.wait_until_ready(Check(server))
        result = LOADS[workload](server, scale)
        result["peak_rss_mb"] = memory_mb(tree(), "VmHWM")
        result["ready_s"] = round(server.ready_s, 3)
    return result


# What is measured with launches of its own.
WHOLE = {"startup": startup, "peers": peer}
