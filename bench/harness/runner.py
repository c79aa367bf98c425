"""A run of one system on one workload, stored as a JSON file."""

import itertools
import json
import statistics
import subprocess
import sys
import time

from . import paths, workloads
from .processes import system_conf, wait_for_quiet

NOISE = 0.12  # more cores than this used by others, or stolen: the run is noisy
LONG = ("slow", "after", "verified", "version")


def noisy(result):
    return max(result.get("other_cores", 0), result.get("steal_cores", 0)) > NOISE


def why_skipped(system, workload):
    conf = system_conf(system)
    if workload in conf.get("skip", {}):
        return conf["skip"][workload]
    if workload not in conf.get("only", [workload]) and workload != "peers":
        return "not for this system"
    return None


def version(system):
    try:
        command = [paths.SYSTEMS / system / "version"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def load1():
    with open("/proc/loadavg") as f:
        return float(f.read().split()[0])


def run(system, workload, scale=workloads.FULL):
    """Runs the system, stores the result and returns it."""
    result = {"system": system, "workload": workload}
    if reason := why_skipped(system, workload):
        return {**result, "skipped": reason}
    result |= {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "waited_for_quiet_s": wait_for_quiet(scale.quiet_s),
        "load1_before": load1(),
        "version": version(system),
    }
    try:
        if measure := workloads.WHOLE.get(workload):
            result |= measure(system, scale)
        else:
            result |= workloads.load(system, workload, scale)
    except RuntimeError as e:
        result["failed"] = str(e)[:600]
    if result.get("wrong"):
        result["void"] = True
    if result.get("error_share", 0) > 0.01:
        result["unclean"] = True  # its latencies mix in error answers
    keep(result, scale.quick)
    return result


def keep(result, quick):
    folder = paths.results_dir(quick)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{result['system']}.{result['workload']}"
    files = (folder / f"{name}.{n}.json" for n in itertools.count())
    file = next(f for f in files if not f.exists())
    file.write_text(json.dumps(result, indent=1) + "\n")


def brief(result):
    """The result without its long parts."""
    return {k: v for k, v in result.items() if not isinstance(v, list) and k not in LONG}


def in_turn(systems, workload, rounds, scale=workloads.FULL):
    """Runs the systems in turn (A B C A B C ...); returns {system: its results}."""
    results = {system: [] for system in systems}
    for _ in range(rounds):
        for system in systems:
            results[system].append(run(system, workload, scale))
            print(json.dumps(brief(results[system][-1])), file=sys.stderr, flush=True)
    return results


def compare(a, b, workload, rounds=3):
    """Every figure of both systems, as medians, and B/A."""
    results = in_turn([a, b], workload, rounds)
    out = {"workload": workload, "A": a, "B": b, "n": rounds}
    for key, value in results[a][0].items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or key == "load1_before":
            continue
        try:
            x, y = (statistics.median(r[key] for r in results[s]) for s in (a, b))
        except (KeyError, TypeError):
            continue
        out[key] = {"A": round(x, 3), "B": round(y, 3), "B/A": round(y / x, 3) if x else None}
    return out
