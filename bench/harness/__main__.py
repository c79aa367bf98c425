"""The commands behind ./run, ./compare, ./table, ./ratios, ./peers and ./scale."""

import argparse
import dataclasses
import json

from . import paths, report, runner
from . import scale as scaling
from .workloads import FULL, QUICK, WORKLOADS

PEERS = (
    "litplex,litserve,fastapi-uvicorn,granian-fastapi,granian-rsgi,mosec,ray,ray-haproxy,bentoml"
)
PEERS += ",mlserver,pytriton,floor"


def workload_list(text):
    names = WORKLOADS if text == "all" else text.split(",")
    if unknown := set(names) - set(WORKLOADS):
        raise argparse.ArgumentTypeError(f"no such workload: {', '.join(sorted(unknown))}")
    return names


def scaled(text):
    names = text.split(",")
    if unknown := set(names) - set(scaling.UNITS):
        raise argparse.ArgumentTypeError(f"not measured: {', '.join(sorted(unknown))}")
    return names


def system_name(text):
    if not (paths.SYSTEMS / text / "start").exists():
        raise argparse.ArgumentTypeError(f"no such system: {text}")
    return text


def system_list(text):
    return [system_name(name) for name in text.split(",")]


def parser():
    top = argparse.ArgumentParser(prog="bench", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="one system; one line of JSON for each workload")
    run.add_argument("--quick", action="store_true", help="2 s windows: a trial")
    run.add_argument("system", type=system_name)
    run.add_argument("workloads", type=workload_list, help="w1,w2,... or all")

    compare = commands.add_parser("compare", help="two systems in turn; B/A of every figure")
    compare.add_argument("a", type=system_name)
    compare.add_argument("b", type=system_name)
    compare.add_argument("workload", choices=WORKLOADS)
    compare.add_argument("rounds", type=int, nargs="?", default=3)

    commands.add_parser("table", help="all results of a day as markdown")

    ratios = commands.add_parser("ratios", help="systems in turn; medians and ratios as markdown")
    ratios.add_argument("--rounds", type=int, help="default: 3, or 1 with --quick")
    ratios.add_argument("--systems", type=system_list, default="litplex,litserve,mosec,floor")
    ratios.add_argument("--quick", action="store_true", help="one round, 2 s windows: a trial")
    ratios.add_argument("--wait", type=float, help="most seconds to wait for a quiet machine")
    ratios.add_argument("workloads", type=workload_list, help="w1,w2,... or all")

    peers = commands.add_parser("peers", help="w1 of every system in turn; one table as markdown")
    peers.add_argument("--rounds", type=int, default=3, help="0: only print the table of the day")
    peers.add_argument("--systems", type=system_list, default=PEERS)
    peers.add_argument("--quick", action="store_true", help="2 s windows: a trial")
    peers.add_argument("--wait", type=float, help="most seconds to wait for a quiet machine")

    scale = commands.add_parser(
        "scale", help="litplex on more and more cores, or with more threads"
    )
    scale.add_argument("--rounds", type=int, default=3)
    scale.add_argument("--quick", action="store_true", help="one round, 2 s windows: a trial")
    scale.add_argument("--wait", type=float, help="most seconds to wait for a quiet machine")
    scale.add_argument("workloads", type=scaled, nargs="?", default="w1,w2,w3")

    return top


def scale_of(args):
    scale = QUICK if args.quick else FULL
    return scale if args.wait is None else dataclasses.replace(scale, quiet_s=args.wait)


def print_peers(args):
    scale = scale_of(args)
    runner.in_turn(args.systems, "peers", args.rounds, scale)
    print(report.peers(scale.quick))


def print_ratios(args):
    scale = scale_of(args)
    rounds = args.rounds or (1 if args.quick else 3)
    base = "litplex" if "litplex" in args.systems else args.systems[0]
    for workload in args.workloads:
        runs = runner.in_turn(args.systems, workload, rounds, scale)
        print(report.ratios(workload, runs, base) + "\n", flush=True)


def main():
    args = parser().parse_args()
    if args.command == "run":
        scale = QUICK if args.quick else FULL
        for workload in args.workloads:
            result = runner.run(args.system, workload, scale)
            print(json.dumps(runner.brief(result)), flush=True)
    elif args.command == "compare":
        result = runner.compare(args.a, args.b, args.workload, args.rounds)
        print(json.dumps(result, indent=1))
    elif args.command == "table":
        print(report.table())
    elif args.command == "peers":
        print_peers(args)
    elif args.command == "scale":
        scaling.run(args, scale_of(args))
    else:
        print_ratios(args)


main()
