"""Finds the directory at which relative paths of a program start."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any

_PACKAGES = ("site-packages", "dist-packages")


def directory_of_caller() -> str | None:
    """Returns the directory of the Python file that calls into this package.

    Files of installed packages and of the standard library are skipped: they may call for the
    program. None if there is no file, as in a notebook; paths then start at the working
    directory.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        directory = _own_directory(frame.f_globals)
        if directory is not None:
            return directory
        frame = frame.f_back
    return None


def _own_directory(namespace: dict[str, Any]) -> str | None:
    name, file = namespace.get("__name__", ""), namespace.get("__file__")
    if name == "litplex" or name.startswith("litplex.") or not isinstance(file, str):
        return None
    # The directory of a file in an archive, such as zipapp's, is that of the archive.
    archive = getattr(namespace.get("__loader__"), "archive", file)
    directory = os.path.dirname(os.path.abspath(archive))
    is_library = os.path.join(directory, "").startswith(_standard_library()) or any(
        part in _PACKAGES for part in directory.split(os.sep)
    )
    return directory if os.path.isdir(directory) and not is_library else None


def _standard_library() -> str:
    # `sysconfig` would read the whole configuration of Python for it.
    return os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")
