"""Makes ``import litserve`` and its submodules resolve to the modules of ``litplex.compat``."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

#: A directory for ``PYTHONPATH`` that does the same.
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "path")

_OURS = "litplex.compat"


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "litserve" and not name.startswith("litserve."):
            return None
        return importlib.util.spec_from_loader(name, self)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        try:
            # The import system returns the module that is here afterwards.
            sys.modules[name] = importlib.import_module(_OURS + name[len("litserve") :])
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith(_OURS):
                raise
            raise ModuleNotFoundError(
                f"litplex has no counterpart of `{name}`; docs/litserve.md lists what it has",
                name=name,
            ) from None


def install() -> None:
    """Makes ``litserve`` resolve to this package, in front of an installed LitServe."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
