"""The metrics of a model: counters, gauges and histograms that appear on ``/metrics``.

The worker keeps the changes of each metric and sends them about every second to the server, which
adds them up over all workers.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

# The server checks the same pattern.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}", re.ASCII)
_MOST_NAMES = 100

# The default bounds, in seconds: from a millisecond to a minute.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metric:
    """A metric with one name. Any thread may change it."""

    kind = ""

    def __init__(self, name: str, help: str) -> None:
        self.name = name
        # The server reads UTF-8, which cannot hold lone surrogates.
        self.help = help.encode("utf-8", "replace").decode()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def take(self) -> dict[str, Any] | None:
        """Returns the change since the last call; None if there is none."""
        with self._lock:
            change = self._take()
        return change and {"name": self.name, "help": self.help, "kind": self.kind, **change}

    def renew(self) -> None:
        """Makes a value that is no change the next change: its reader has lost it."""

    def _take(self) -> dict[str, Any] | None:
        raise NotImplementedError


class Counter(Metric):
    """A sum that only grows: tokens, pages, cache hits."""

    kind = "counter"

    def __init__(self, name: str, help: str) -> None:
        super().__init__(name, help)
        self._value = 0.0

    def add(self, amount: float = 1) -> None:
        """Adds an amount, by default 1.

        Raises:
            ValueError: the amount is negative, or not a finite number.
        """
        amount = _finite(self, amount)
        if amount < 0:
            raise ValueError(f"the counter `{self.name}` only grows; {amount} is negative")
        with self._lock:
            self._value += amount

    def _take(self) -> dict[str, Any] | None:
        value, self._value = self._value, 0.0
        return {"value": value} if value else None


class Gauge(Metric):
    """A value that rises and falls, such as the size of a cache. Each worker has its own."""

    kind = "gauge"

    def __init__(self, name: str, help: str) -> None:
        super().__init__(name, help)
        self._value: float | None = None
        self._is_new = False

    def set(self, value: float) -> None:
        """Sets the value.

        Raises:
            ValueError: the value is not a finite number.
        """
        value = _finite(self, value)
        with self._lock:
            self._value, self._is_new = value, True

    def renew(self) -> None:
        with self._lock:
            self._is_new = self._value is not None

    def _take(self) -> dict[str, Any] | None:
        is_new, self._is_new = self._is_new, False
        return {"value": self._value} if is_new else None


class Histogram(Metric):
    """The distribution of values: their number up to each of some bounds, and their sum."""

    kind = "histogram"

    def __init__(self, name: str, help: str, bounds: list[float]) -> None:
        super().__init__(name, help)
        self.bounds = bounds
        self._clear()

    def _clear(self) -> None:
        self._counts = [0] * (len(self.bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Adds a value.

        Raises:
            ValueError: the value is not a finite number.
        """
        value = _finite(self, value)
        place = next((i for i, bound in enumerate(self.bounds) if value <= bound), -1)
        with self._lock:
            self._counts[place] += 1
            self._sum += value

    def _take(self) -> dict[str, Any] | None:
        if not any(self._counts):
            return None
        change = {"bounds": self.bounds, "counts": self._counts, "sum": self._sum}
        self._clear()
        return change


class Summary(Metric):
    """The number of values and their sum, as ``log`` records numbers."""

    kind = "summary"

    def __init__(self, name: str, help: str) -> None:
        super().__init__(name, help)
        self._count, self._sum = 0, 0.0

    def observe(self, value: float) -> None:
        """Adds a value."""
        with self._lock:
            self._count += 1
            self._sum += value

    def _take(self) -> dict[str, Any] | None:
        count, total = self._count, self._sum
        self._count, self._sum = 0, 0.0
        return {"count": count, "sum": total} if count else None


_Kind = TypeVar("_Kind", bound=Metric)


class Metrics:
    """All metrics of one model, by name."""

    def __init__(self) -> None:
        self._known: dict[str, Metric] = {}

    def counter(self, name: str, help: str) -> Counter:
        return self._get(name, Counter, lambda: Counter(name, help))

    def gauge(self, name: str, help: str) -> Gauge:
        return self._get(name, Gauge, lambda: Gauge(name, help))

    def histogram(self, name: str, help: str, buckets: Sequence[float] | None) -> Histogram:
        bounds = [float(bound) for bound in (_SECONDS if buckets is None else buckets)]
        grows = all(a < b for a, b in zip(bounds, bounds[1:]))
        if not (bounds and grows and all(map(math.isfinite, bounds))):
            raise ValueError(
                f"the buckets of `{name}` must be finite and grow from one to the next: {bounds}"
            )
        found = self._get(name, Histogram, lambda: Histogram(name, help, bounds))
        if found.bounds != bounds:
            raise ValueError(f"`{name}` is measured already, with other buckets")
        return found

    def observe(self, name: str, value: float) -> None:
        """Adds a value to the summary of a name, which may be new.

        Raises:
            ValueError: the name cannot be one of a metric, or is one of another kind.
        """
        if math.isfinite(value):
            help = f"What models logged as {name}."
            self._get(name, Summary, lambda: Summary(name, help)).observe(float(value))

    def take(self) -> list[dict[str, Any]]:
        """Returns the changes since the last call."""
        # A copy, because hooks may add names at the same time.
        return [change for metric in list(self._known.values()) if (change := metric.take())]

    def renew(self) -> None:
        """Makes the values of gauges changes again: their reader has lost them."""
        for metric in list(self._known.values()):
            metric.renew()

    def _get(self, name: str, kind: type[_Kind], new: Callable[[], _Kind]) -> _Kind:
        found = self._known.get(name)
        if found is None:
            _check(name, kind, len(self._known))
            # Two threads that call this at the same time get the same metric.
            found = self._known.setdefault(name, new())
        if not isinstance(found, kind):
            raise ValueError(f"`{name}` is measured already, as a {found.kind}")
        return found


def _check(name: Any, kind: type[Metric], known: int) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"invalid metric name {name!r}: expected a letter and then letters, digits and `_`, at "
            f'most 64, such as "tokens"'
        )
    if kind is not Counter and name.endswith(("_total", "_count", "_sum", "_bucket")):
        raise ValueError(
            f"`{name}` reads like a part of another metric; leave out `_{name.rpartition('_')[2]}`"
        )
    if known >= _MOST_NAMES:
        raise ValueError(
            f"`{name}` is one metric too many: a model has {_MOST_NAMES} at most; let no name "
            "depend on what is requested"
        )


def _finite(metric: Metric, value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"the {metric.kind} `{metric.name}` takes finite numbers, not {value!r}")
    return number
