"""Measures the cores that the other processes of the machine leave to a worker.

A worker may use them beyond its share. What is measured is CPU time: a worker that waits, or
computes with one thread, leaves the other cores. Processes that are not the server's count, too.
"""

from __future__ import annotations

import os
import time

# The clock ticks of /proc/stat are 10 ms: a shorter time says too little.
_SECONDS = 0.1

# The part of a core that others may use without being counted: the server, and a client on this
# machine.
_SPARE = 0.3

# The columns of a core in which it is idle: `idle` and `iowait` (proc_stat(5)), after its name.
_IDLE_COLUMNS = (4, 5)


class IdleCores:
    """The number of threads that idle cores allow this process.

    Args:
        cores: The number of cores that the server may use.
        stat: The file in which the kernel counts how long each core was idle (proc_stat(5)).

    Raises:
        OSError: the system does not tell how long these cores were idle, or the server may use a
            part of their time only (a quota).
    """

    def __init__(self, cores: int, stat: str = "/proc/stat") -> None:
        self._stat = os.open(stat, os.O_RDONLY | os.O_CLOEXEC)
        self._own = {b"cpu%d" % core for core in os.sched_getaffinity(0)}
        if len(self._own) != cores:
            raise OSError(f"{len(self._own)} cores, of which the server may use {cores}")
        self._number = 0
        self._since = time.monotonic()
        self._could_use = self._measure()

    def number(self, share: int) -> int:
        """Returns the number of threads for a worker with this share, as measured over the last
        100 ms or longer."""
        now = time.monotonic()
        elapsed = now - self._since
        if elapsed >= _SECONDS:
            could_use = self._measure()
            cores = (could_use - self._could_use) / elapsed
            self._number = threads_for(cores, len(self._own))
            self._since, self._could_use = now, could_use
        return max(share, self._number)

    def _measure(self) -> float:
        """Returns the seconds that this process used cores of its own or could have used them."""
        # The lines of the cores come first, and are some 60 bytes each.
        lines = os.pread(self._stat, 4096 + 100 * (os.cpu_count() or 1), 0).split(b"\n")
        fields = (line.split() for line in lines if line.startswith(b"cpu"))
        own = [core for core in fields if core[0] in self._own]
        if len(own) != len(self._own):
            raise OSError("the kernel does not say how long each core was idle")
        idle = sum(int(core[column]) for core in own for column in _IDLE_COLUMNS)
        return idle / os.sysconf("SC_CLK_TCK") + time.process_time()


def threads_for(cores: float, most: int) -> int:
    """Returns the number of threads for a process that could have used this many cores."""
    return min(most, int(cores + _SPARE))
