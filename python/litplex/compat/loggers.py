"""What ``import litserve.loggers`` finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from litplex.compat._missing import unavailable_names

__all__ = ["Logger"]

__getattr__ = unavailable_names(
    __name__,
    {"_LoggerConnector": "give LitServer `loggers`; each worker calls its own"},
)


class Logger(ABC):
    """Gets what a model logs with ``self.log(key, value)``; each worker has its own."""

    _mounts: tuple[tuple[str, Any], ...] = ()

    def mount(self, path: str, app: Any) -> None:
        """Serves an ASGI app at a path, beside the endpoints.

        It runs in the app host, and entries are processed in the workers: what it shows must be
        shared between processes, as files are.
        """
        self._mounts = (*self._mounts, (path, app))

    def __getstate__(self) -> dict[str, Any]:
        # Workers have no use for apps, many of which cannot be sent to them.
        return {name: value for name, value in vars(self).items() if name != "_mounts"}

    @abstractmethod
    def process(self, key: str, value: Any) -> None:
        """Takes an entry, on a thread beside the model. What it raises is logged."""
