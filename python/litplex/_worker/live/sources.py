"""The source files that a model's program loaded: its own, not those of Python and of packages."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from typing import Any

from litplex import _capture

# The most files that are reported, and the most bytes of the path of one.
_MOST_FILES = 1000
_MOST_PATH = 4096

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PYTHON = os.path.dirname(os.path.abspath(os.__file__))
_OTHERS = tuple(
    path + os.sep for each in (_PACKAGE, _PYTHON) for path in (each, os.path.realpath(each))
)
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def is_own(path: Any) -> bool:
    """Returns whether a file is the user's: not of Python, of an installed package or of this
    package. A package that is installed as editable is the user's."""
    return (
        isinstance(path, str)
        and path.endswith(".py")
        and os.path.isabs(path)
        and len(path) <= _MOST_PATH
        and not path.startswith(_OTHERS)
        and not any(packages in path for packages in _PACKAGES)
    )


def modules_of_files() -> dict[str, list[Any]]:
    """Returns the loaded modules of each of the user's files, by its path."""
    found: dict[str, list[Any]] = {}
    for module in list(sys.modules.values()):
        # Not by `getattr`: a module may load another one when an attribute is missing.
        path: Any = getattr(module, "__dict__", {}).get("__file__")
        if is_own(path):
            modules = found.setdefault(path, [])
            if not any(module is known for known in modules):
                modules.append(module)
    return found


class Sources:
    """The files that are loaded now, and those that the server knows."""

    def __init__(self) -> None:
        self._modules = 0
        self._told: set[str] = set()

    def new(self) -> list[str]:
        """Returns the files that were loaded since the last call, in order. Costs nothing while no
        module is loaded."""
        if len(sys.modules) == self._modules:
            return []
        self._modules = len(sys.modules)
        fresh = sorted(set(modules_of_files()) - self._told)
        fresh = fresh[: max(_MOST_FILES - len(self._told), 0)]
        self._told.update(fresh)
        return fresh


class Texts:
    """The text of each of the user's files as it was when it was loaded.

    While it follows imports, the user's modules are compiled from their files: the cache of Python
    knows a file by its length and the second in which it was written, which two saves may share.
    """

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}

    def follow(self) -> None:
        """Keeps the text of each file that is loaded from now on."""
        texts = self.texts
        inherited = importlib.machinery.SourceFileLoader.get_code

        def get_code(loader: Any, fullname: str) -> Any:
            path = loader.get_filename(fullname)
            if not is_own(path):
                return inherited(loader, fullname)
            texts[path] = text = loader.get_data(path)
            return loader.source_to_code(text, path)

        loader_class: Any = importlib.machinery.SourceFileLoader
        loader_class.get_code = get_code
        _capture.read = texts.__setitem__
