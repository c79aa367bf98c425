"""The memory of this process in swap while it hibernates.

A process may do this to itself without any privilege (madvise(2)); another one needs
CAP_SYS_NICE for it.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
import time
from typing import NamedTuple

# The kernel's numbers of the advice, from asm-generic/mman-common.h.
_MADV_WILLNEED = 3
_MADV_PAGEOUT = 21
_MADV_POPULATE_READ = 22

# A mapping with few pages for its length is left to page faults: to populate it would map all the
# pages that it never had.
_SPARSE = 4

# The bytes that are moved to swap at a time, and the seconds after which the rest stays in memory:
# the server ends a worker with too large a rest.
_PIECE = 256 << 20
_LONGEST_SECONDS = 60.0

_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ (\d+)")


class _Mapping(NamedTuple):
    begin: int
    end: int
    is_file: bool
    resident: int
    swapped: int

    def is_dense(self) -> bool:
        return self.end - self.begin <= _SPARSE * (self.resident + self.swapped)


def is_possible() -> bool:
    """Returns whether this system can move the memory of a process to swap."""
    return sys.platform == "linux" and hasattr(_libc(), "madvise")


def page_out() -> list[_Mapping]:
    """Moves the memory of this process to swap, as far as there is room and time. What other
    processes share stays, and so does what is locked.

    Returns:
        The mappings that had pages in memory, for :func:`page_in`.
    """
    mappings = [mapping for mapping in _mappings() if mapping.resident or mapping.swapped]
    ends = time.monotonic() + _LONGEST_SECONDS
    for mapping in mappings:
        for begin in range(mapping.begin, mapping.end, _PIECE):
            if time.monotonic() > ends:
                return mappings
            _advise(begin, min(begin + _PIECE, mapping.end), _MADV_PAGEOUT)
    return mappings


def page_in(mappings: list[_Mapping]) -> None:
    """Reads back what these mappings had in memory, from swap and from files.

    All of it is asked for before any of it is waited for, because disks are fast in long reads
    only: page faults alone read a few pages each.
    """
    for mapping in mappings:
        # Of a file all pages would be read, also those that the model never read.
        if mapping.is_dense() or not mapping.is_file:
            _advise(mapping.begin, mapping.end, _MADV_WILLNEED)
    for mapping in mappings:
        if mapping.is_dense():
            _advise(mapping.begin, mapping.end, _MADV_POPULATE_READ)


def _advise(begin: int, end: int, advice: int) -> None:
    # Some mappings refuse it, such as locked ones, and older kernels know not all advice.
    address, length = ctypes.c_void_p(begin), ctypes.c_size_t(end - begin)
    _libc().madvise(address, length, advice)


@functools.lru_cache(None)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _mappings() -> list[_Mapping]:
    """Returns the mappings of this process, with their bytes in memory and in swap; see proc(5)."""
    mappings = []
    begin = end = inode = resident = 0
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "Rss":
                resident = _bytes(value)
            elif name == "Swap":
                mappings.append(_Mapping(begin, end, inode != 0, resident, _bytes(value)))
            else:
                header = _HEADER.match(line)
                if header is not None:
                    begin, end = int(header[1], 16), int(header[2], 16)
                    inode = int(header[3])
    return mappings


def _bytes(value: str) -> int:
    return int(value.split()[0]) * 1024
