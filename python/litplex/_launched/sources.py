"""The source files that a process has loaded of the user's program, not those of Python and of
packages, with the digests of their texts.

A digest is that of the text that the process compiled, not of the file as it is later: a save may
come at any time. So the files are read here, before Python compiles them.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from litplex import _capture

# `hashlib` loads OpenSSL, which takes 2 ms and 1.5 MB of each process.
try:
    from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        from hashlib import sha256

if TYPE_CHECKING:
    from collections.abc import Callable

# The most files that are reported, and the most bytes of the path of one.
_MOST_FILES = 1000
_MOST_PATH = 4096

# Python's cache knows a file by its length and the second in which it was saved, which two saves
# may share. After so many seconds there is no other save in the same second.
_SETTLED = 2.0

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
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
    """The source files that this process has loaded, and those that the server knows.

    Args:
        keeps_texts: Whether to keep the texts. Python's cache is not used then. Default: no.

    Attributes:
        texts: The text of each file as it was loaded, by its path; empty unless they are kept.
        tell: Called with the files that :meth:`new` returns when a file is loaded, on the thread
            of the import. Default: None.
    """

    def __init__(self, *, keeps_texts: bool = False) -> None:
        self.texts: dict[str, bytes] = {}
        self.tell: Callable[[list[dict[str, str]]], None] | None = None
        self._keeps_texts = keeps_texts
        self._digests: dict[str, str] = {}
        self._loads = 0
        self._known: tuple[int, int] | None = None
        self._told: dict[str, str] = {}
        # Two threads may load files, and tell of them.
        self._telling = threading.RLock()
        self._pid = os.getpid()

    def follow(self) -> None:
        """Notes each file that is loaded from now on, and those that a template has loaded, which
        have not changed since."""
        for path in modules_of_files():
            with contextlib.suppress(OSError), open(path, "rb") as file:
                self.note(path, file.read())
        inherited = importlib.machinery.SourceFileLoader.get_code

        def get_code(loader: Any, fullname: str) -> Any:
            path = loader.get_filename(fullname)
            if not is_own(path):
                return inherited(loader, fullname)
            before, text = _stat(path), loader.get_data(path)
            self.note(path, text)
            if not self._keeps_texts and _has_right_cache(path):
                code = inherited(loader, fullname)
                if _stat(path) == before:
                    return code
            return loader.source_to_code(text, path)

        loader_class: Any = importlib.machinery.SourceFileLoader
        loader_class.get_code = get_code
        _capture.read = self.note

    def note(self, path: str, text: bytes) -> None:
        """Takes the text of a file that is loaded."""
        # A process that a hook forked has the connections of this one, and must not use them.
        if not is_own(path) or os.getpid() != self._pid:
            return
        if self._keeps_texts:
            self.texts[path] = text
        self._digests[path] = _digest(text)
        self._loads += 1
        self.report()

    def report(self) -> None:
        """Tells which files were loaded since the last time. Costs nothing while none is."""
        if self.tell is None or self._is_told():
            return
        with self._telling:
            fresh = self.new()
            if fresh:
                self.tell(fresh)

    def new(self) -> list[dict[str, str]]:
        """Returns the files that were loaded since the last call, in order, each with its ``path``
        and the ``digest`` of its text."""
        with self._telling:
            self._known = self._now()
            for path in set(modules_of_files()) - set(self._digests):
                # Another loader has loaded it, or it was there before this one.
                self._digests[path] = _digest_now(path)
            fresh = []
            for path, digest in sorted(self._digests.copy().items()):
                has_room = path in self._told or len(self._told) < _MOST_FILES
                # A module that the model wrote and has removed again is no part of the program.
                if has_room and self._told.get(path) != digest and os.path.exists(path):
                    self._told[path] = digest
                    fresh.append({"path": path, "digest": digest})
        return fresh

    def loaded(self) -> list[dict[str, str]]:
        """Returns all files, as :meth:`new` returns the further ones."""
        self.new()
        told = sorted(self._told.copy().items())
        return [{"path": path, "digest": digest} for path, digest in told]

    def _is_told(self) -> bool:
        return self._known == self._now()

    def _now(self) -> tuple[int, int]:
        return len(sys.modules), self._loads


def _digest(text: bytes) -> str:
    digest: str = sha256(text).hexdigest()
    return digest


def _digest_now(path: str) -> str:
    """Returns the digest of a file as it is; an empty text if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return _digest(file.read())
    except OSError:
        return ""


def _stat(path: str) -> Any:
    """Returns what differs after a save of a file; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _has_right_cache(path: str) -> bool:
    """Returns whether what Python's cache has of a file, if anything, is that of its last save. A
    cache that may be that of an earlier one is removed."""
    try:
        saved = os.stat(path).st_mtime
    except OSError:
        return False
    if time.time() - saved <= _SETTLED:
        return False
    try:
        cache = importlib.util.cache_from_source(path)
        cached = os.stat(cache).st_mtime
    except (OSError, NotImplementedError):
        return True
    if cached - saved > _SETTLED:
        return True
    with contextlib.suppress(OSError):
        os.unlink(cache)
        return True
    return False
