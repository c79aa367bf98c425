"""Measures how long the packages take that a model imports, so that a template can import them.

Only imports that the user's own code makes are measured, each with all that it imports in turn.
What is imported after that code has changed environment variables is not: packages read variables
when they are imported, and a template has those that the server chose.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
import threading
import time
from typing import Any

from litplex._launched.sources import is_own

# The seconds below which an import is not worth a word, and the most of them that are reported.
_SECONDS = 0.01
_MOST = 100


class _Depth(threading.local):
    depth = 0
    is_asking = False


class Imports:
    """A finder that finds nothing itself, and measures the imports of modules that are not the
    user's own."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._files: dict[str, str] = {}
        self._variables = dict(os.environ)
        self._here = _Depth()

    def follow(self) -> None:
        """Measures each import from now on, until `end`."""
        sys.meta_path.insert(0, self)

    def end(self) -> list[dict[str, Any]]:
        """Returns the modules whose imports took long, in order, each with its ``seconds``."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        slow = [each for each in self._seconds.items() if each[1] >= _SECONDS]
        least = sorted((seconds for _, seconds in slow), reverse=True)[:_MOST][-1:]
        return [
            {"module": name, "file": self._files[name], "seconds": round(seconds, 3)}
            for name, seconds in slow
            if [seconds] >= least
        ]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Returns what the other finders find."""
        here = self._here
        if here.depth or here.is_asking:
            return None
        here.is_asking = True
        try:
            others = [finder for finder in sys.meta_path if finder is not self]
            found = (finder.find_spec(name, path, target) for finder in others)
            spec = next((spec for spec in found if spec is not None), None)
        finally:
            here.is_asking = False
        if spec is not None and _is_of_a_package(spec):
            self._measure(name, spec.loader, str(spec.origin))
        return spec

    def _measure(self, name: str, loader: Any, file: str) -> None:
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            vars(loader).pop("exec_module", None)
            here, is_as_given = self._here, os.environ == self._variables
            here.depth += 1
            begin = time.perf_counter()
            try:
                execute(module)
            finally:
                here.depth -= 1
            if is_as_given:
                self._seconds[name], self._files[name] = time.perf_counter() - begin, file
                # Those that the package itself has set, it sets in a template, too.
                self._variables = dict(os.environ)

        loader.exec_module = exec_module


def _is_of_a_package(spec: Any) -> bool:
    """Returns whether a module is one of Python or of an installed package, in a file."""
    loader = spec.loader
    file_loaders = (importlib.machinery.SourceFileLoader, importlib.machinery.ExtensionFileLoader)
    return (
        isinstance(loader, file_loaders)
        and not spec.name.startswith("litplex.")
        and not is_own(spec.origin)
    )
