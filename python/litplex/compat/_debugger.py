"""``pdb`` for processes that have no standard input: workers."""

from __future__ import annotations

import fcntl
import os
import pdb
import sys
from types import FrameType
from typing import IO, Any


def stop_at(frame: FrameType) -> None:
    """Stops in the debugger at the next line of a frame; without a terminal, prints what to do."""
    try:
        _open_terminal("r").close()
    except OSError as error:
        print(
            f"set_trace: no terminal to debug in ({error}); start the server in the foreground "
            f"of one, in a container with `docker run -it`",
            file=sys.stderr,
            flush=True,
        )
        return
    # Ctrl-C belongs to the server.
    debugger = _TerminalPdb(nosigint=True)
    debugger.use_rawinput = False
    debugger.set_trace(frame)


def _open_terminal(mode: str) -> IO[Any]:
    path = os.environ.get("LITPLEX_TERMINAL", "/dev/tty")
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOCTTY))


class _TerminalPdb(pdb.Pdb):
    def interaction(self, *args: Any, **kwargs: Any) -> None:
        with _open_terminal("r") as self.stdin, _open_terminal("w") as self.stdout:
            # Other workers that stop wait for this one.
            fcntl.flock(self.stdout, fcntl.LOCK_EX)
            super().interaction(*args, **kwargs)
