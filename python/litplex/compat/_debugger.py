"""``pdb`` for processes that have no standard input: workers."""

import fcntl
import os
import pdb
import sys


def stop_at(frame):
    """Stops in the debugger at the next line of a frame; without a terminal, says what to do."""
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
    # Ctrl-C is for the server.
    debugger = _TerminalPdb(nosigint=True)
    debugger.use_rawinput = False
    debugger.set_trace(frame)


def _open_terminal(mode):
    path = os.environ.get("LITPLEX_TERMINAL", "/dev/tty")
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | os.O_NOCTTY))


class _TerminalPdb(pdb.Pdb):
    def interaction(self, *args, **kwargs):
        with _open_terminal("r") as self.stdin, _open_terminal("w") as self.stdout:
            # Other workers that stop wait for their turn.
            fcntl.flock(self.stdout, fcntl.LOCK_EX)
            super().interaction(*args, **kwargs)
