"""``python -m litplex._describe server.py [args]``: prints what a script serves, as JSON.

The script runs up to the call that serves. The binary asks this when it is started with a Python
file: ``litplex serve server.py``.
"""

import json
import os
import sys

from litplex import _capture, _options, _server
from litplex._apphost import _manifest


def main(argv):
    """Prints the program on what was standard output; the script's own prints go to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    until_read = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    script = os.path.abspath(argv[0])
    sys.argv = [script, *argv[1:]]
    # As Python does for a script, which may be a link: what is imported lies beside its target.
    sys.path[0] = os.path.dirname(os.path.realpath(script))
    servers, options = _run(script)
    order = _manifest.manifest_of(servers, options)
    json.dump(_server.program_of(servers, options, order), out, allow_nan=False)
    out.close()
    # What is handed over in files is there until its reader has opened them.
    until_read.read()


def _run(script):
    captured, module = _capture.run_script(script, "__main__")
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
