"""The command behind ./stress/run."""

import argparse
import asyncio
import importlib
import sys

from . import report

TOOLS = [
    "killstorm", "steps", "overload10", "drain", "disconnects", "soak",
    "policy", "scrape", "chatty", "hostile", "graphstorm", "graphoverload", "departure",
    "firsttoken", "copies", "reloads", "sabotages", "saves", "upgrade",
]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="stress/run", description=__doc__)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("--quick", action="store_true", help="a short trial")
    parser.add_argument("--minutes", type=float, help="how long soak runs (default: 20)")
    args = parser.parse_args()
    tool = importlib.import_module(f".{args.tool}", __package__)
    lines = asyncio.run(tool.run(args))
    print(report.table(f"{args.tool}{' (quick)' * args.quick}", lines))
    sys.exit(any(line.missed for line in lines))


main()
