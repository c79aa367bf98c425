"""What ``import litserve.loggers`` finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["Logger"]


class Logger(ABC):
    """Gets what a model logs with ``self.log(key, value)``; each worker has its own."""

    def mount(self, path: str, app: Any) -> None:
        """Would serve an ASGI app at a path; refused when the server is made."""
        self._mounted = path

    @abstractmethod
    def process(self, key: str, value: Any) -> None:
        """Takes an entry, on a thread beside the model. What it raises is logged."""
