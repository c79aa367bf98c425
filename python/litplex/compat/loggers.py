"""The module ``litserve.loggers``."""

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
    """Processes the values that a model logs with ``self.log(key, value)``; each worker has its
    own."""

    _mounts: tuple[tuple[str, Any], ...] = ()

    def mount(self, path: str, app: Any) -> None:
        """Serves an ASGI app at a path, beside the endpoints.

        The app runs in the app host, and workers process the values. The app can show only what
        processes share, such as files.
        """
        self._mounts = (*self._mounts, (path, app))

    def __getstate__(self) -> dict[str, Any]:
        # Workers do not need apps, and many apps cannot be pickled.
        return {name: value for name, value in vars(self).items() if name != "_mounts"}

    @abstractmethod
    def process(self, key: str, value: Any) -> None:
        """Processes a value, on a thread beside the model. An exception is logged."""
