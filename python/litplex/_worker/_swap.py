"""The memory of this process in swap while it hibernates.

A process may do this to itself without any privilege (madvise(2)); another one needs
CAP_SYS_NICE for it.
"""

from __future__ import annotations

import ctypes
import re
import sys
from typing import NamedTuple

# The kernel's numbers of the advice, from asm-generic/mman-common.h.
_MADV_WILLNEED = 3
_MADV_PAGEOUT = 21
_MADV_POPULATE_READ = 22

# A mapping with few pages in swap for its length is left to page faults: to populate it would map
# all the pages that it never had.
_SPARSE = 4

_HEADER = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+")


class _Mapping(NamedTuple):
    begin: int
    end: int
    resident: int
    swapped: int


def is_possible() -> bool:
    """Returns whether this system can move the memory of a process to swap."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "madvise")


def page_out() -> None:
    """Moves the memory of this process to swap, as far as there is room. What other processes share
    stays, and so does what is locked."""
    for mapping in _mappings():
        if mapping.resident:
            _advise(mapping, _MADV_PAGEOUT)


def page_in() -> None:
    """Reads back what is in swap.

    All of it is asked for before any of it is waited for, because swap is fast in long reads
    only: page faults alone read a few pages each.
    """
    swapped = [mapping for mapping in _mappings() if mapping.swapped]
    for mapping in swapped:
        _advise(mapping, _MADV_WILLNEED)
    for mapping in swapped:
        if mapping.end - mapping.begin <= _SPARSE * (mapping.resident + mapping.swapped):
            _advise(mapping, _MADV_POPULATE_READ)


def _advise(mapping: _Mapping, advice: int) -> None:
    # Some mappings refuse it, such as locked ones, and older kernels know not all advice.
    _libc().madvise(mapping.begin, mapping.end - mapping.begin, advice)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


def _mappings() -> list[_Mapping]:
    """Returns the mappings of this process, with their bytes in memory and in swap; see proc(5)."""
    mappings = []
    begin = end = resident = 0
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "Rss":
                resident = _bytes(value)
            elif name == "Swap":
                mappings.append(_Mapping(begin, end, resident, _bytes(value)))
            else:
                header = _HEADER.match(line)
                if header is not None:
                    begin, end = int(header[1], 16), int(header[2], 16)
    return mappings


def _bytes(value: str) -> int:
    return int(value.split()[0]) * 1024
