"""The report of a tool: figures, and whether each meets its bar."""

import math
from typing import NamedTuple


class Line(NamedTuple):
    name: str
    value: object
    bar: str = ""
    missed: bool = False


def figure(name, value):
    return Line(name, value)


def at_most(name, value, most):
    """A figure with a bar; a missing figure fails its bar."""
    return Line(name, value, f"<= {most:g}", value is None or not value <= most)


def at_least(name, value, least):
    return Line(name, value, f">= {least:g}", value is None or not value >= least)


def table(title, lines):
    rows = [(line.name, text(line.value), line.bar, verdict(line)) for line in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    shown = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([title, *(line.rstrip() for line in shown)])


def text(value):
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def verdict(line):
    if not line.bar:
        return ""
    return "MISSED" if line.missed else "met"


def percentile(values, share):
    """The smallest value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def milliseconds(seconds):
    return None if seconds is None else round(seconds * 1000, 2)
