"""The paths of the harness: its inputs, its systems and its results."""

import os
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
SYSTEMS = BENCH / "systems"
SENTENCES = BENCH / "data" / "sentences.json"
WRK_SCRIPT = BENCH / "lua" / "report.lua"

HOME = Path(os.environ.get("BENCH_HOME") or "~/.cache/litplex-bench").expanduser().absolute()
LOADGEN = HOME / "target" / "release" / "loadgen"
LOGS = HOME / "logs"
MODEL = HOME / "data" / "minilm"


def results_dir(quick=False):
    """The folder of the raw results: one per day, with quick trials apart from real runs."""
    if "BENCH_RESULTS" in os.environ:
        return Path(os.environ["BENCH_RESULTS"])
    date = os.environ.get("BENCH_DATE") or time.strftime("%Y-%m-%d")
    return HOME / "results" / (date + "-quick" * quick)
