"""``python -m litplex._describe [--module=NAME] server.py [args]`` prints the program of a script.

NAME is the name of the script for ``python -m``, if it is in a package. The program is JSON. The
script runs up to the call that serves. The binary runs this module when it is started with a
Python file: ``litplex serve server.py``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from litplex import _capture, _options, _server
from litplex._apphost import _manifest
from litplex._launched.sources import Sources


def main(argv: list[str]) -> None:
    """Prints the program on the original standard output; the script's output goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    until_read = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    module = argv.pop(0).partition("=")[2] if argv[0].startswith("--module=") else None
    script = os.path.abspath(argv[0])
    sys.argv = [script, *argv[1:]]
    # As Python does for a script, which may be a link: its imports are beside its target. With `-m`
    # they are in the working directory, which is the first entry already.
    if module is None:
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    sources = Sources()
    sources.follow()
    servers, options = _run(script, module)
    manifest = _manifest.manifest_of(servers, options)
    program = _server.program_of(servers, options, manifest)
    program["program"]["sources"] = sources.loaded()
    json.dump(program, out, allow_nan=False)
    out.close()
    # The files of the models exist until the binary has opened them.
    until_read.read()


def _run(script: str, in_package: str | None) -> tuple[Sequence[Any], dict[str, Any]]:
    captured, module = _capture.run_script(script, "__main__", in_package)
    if captured is not None:
        return captured.servers, captured.options
    found = [value for value in vars(module).values() if isinstance(value, _server.LitServer)]
    if not found:
        raise _options.ProgramError(
            f"{script} ended without serving; call `LitServer(…).run()` or `run_servers(…)` in it"
        )
    return found, {"directory": os.path.dirname(script)}


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except _options.ProgramError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
