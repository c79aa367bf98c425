"""Handlers of signals that hold in this process, and not in the processes that it forks off."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

# The previous handlers by the numbers of the signals.
_previous: dict[int, Any] = {}

_forking = threading.local()


def handle(number: int, handler: Any) -> Any:
    """Sets the handler of a signal in this process, but not in children. Returns the previous one.

    Raises:
        ValueError: This is not the main thread.
    """
    previous = signal.signal(number, handler)
    return _previous.setdefault(number, signal.SIG_DFL if previous is None else previous)


def release(number: int, handler: Any) -> None:
    """Sets a handler that children inherit, in place of the one of `handle`."""
    _previous.pop(number, None)
    signal.signal(number, handler)


# A child blocks the signals until it has the previous handlers. A handler of ours that asked there
# which process it is in would come too late: Python runs handlers between two steps of the program,
# and a signal just before a call that blocks waits for the end of that call. `Pool.terminate` then
# never returns.


def _block() -> None:
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, tuple(_previous))


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _restore_in_child() -> None:
    while _previous:
        signal.signal(*_previous.popitem())
    _unblock()


os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_restore_in_child)
