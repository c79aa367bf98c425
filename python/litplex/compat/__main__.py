"""``python -m litplex.compat server.py [args]``: runs a program written for LitServe, unchanged;
``-m package.server`` one that is a module.

``python -m litplex.compat --path`` prints a directory that does the same on ``PYTHONPATH``.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Sequence

from litplex import _options
from litplex.compat import _alias, docker_builder

USAGE = """\
usage: python -m litplex.compat server.py [args]
       python -m litplex.compat -m package.server [args]
           runs a program written for LitServe
       python -m litplex.compat --path
           prints a directory for PYTHONPATH that lets any program find litplex as `litserve`
       python -m litplex.compat dockerize server.py ...
           writes a Dockerfile for it"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status.

    Args:
        arguments: The arguments. Default: those of this process.
    """
    argv = sys.argv[1:] if arguments is None else list(arguments)
    if argv == ["--path"]:
        print(_alias.PATH)
        return 0
    if argv[:1] == ["dockerize"]:
        return docker_builder.main(argv[1:])
    if argv[:1] == ["-m"] and argv[1:]:
        return _run_module(argv[1:])
    if not argv or argv[0].startswith("-"):
        print(USAGE, file=sys.stdout if argv[:1] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    script = os.path.abspath(argv[0])
    if not os.path.isfile(script):
        print(f"error: there is no file `{argv[0]}`", file=sys.stderr)
        return 2
    # As Python does for a script, which may be a link: its imports are beside its target.
    sys.path[0] = os.path.dirname(os.path.realpath(script))
    return _run(argv, lambda: runpy.run_path(script, run_name="__main__"))


def _run_module(argv: list[str]) -> int:
    def run() -> None:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)

    return _run(argv, run)


def _run(argv: list[str], program: Callable[[], object]) -> int:
    _alias.install()
    # Workers are processes of their own, and also import `litserve`.
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_alias.PATH, known]))
    sys.argv = list(argv)
    try:
        program()
    except _options.ProgramError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
