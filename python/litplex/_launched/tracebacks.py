"""Tracebacks of hooks, as their authors read them: without the frames of this package."""

from __future__ import annotations

import importlib
import os
import traceback

from litplex._launched import request_marks

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_IMPORTS = os.path.dirname(importlib.__file__) + os.sep


def formatted(error: BaseException) -> str:
    """Returns the traceback of an exception and of its causes as a text without frames of this
    package. One that has no others was raised by this package: where that speaks for itself
    (``client_detail``; a ``SyntaxError``, which shows the line) its frames are left out too, and
    otherwise it is a defect, and they stay."""
    said = traceback.TracebackException.from_exception(error)
    _cut(said, hasattr(error, "client_detail") or isinstance(error, SyntaxError), set())
    return "".join(said.format()).rstrip()


def _cut(said: traceback.TracebackException | None, is_clear: bool, seen: set[int]) -> None:
    if said is None or id(said) in seen:
        return
    seen.add(id(said))
    users = [frame for frame in said.stack if not _is_ours(frame.filename)]
    if users or is_clear:
        said.stack[:] = users
    for other in (said.__cause__, said.__context__, *(getattr(said, "exceptions", None) or ())):
        _cut(other, is_clear, seen)


def _is_ours(filename: str) -> bool:
    return filename.startswith((_PACKAGE, _IMPORTS, "<frozen"))


def print_of(error: BaseException) -> None:
    """Prints the traceback of an exception to standard error."""
    request_marks.report(formatted(error))


def summary_of(error: BaseException) -> str:
    """Returns the last line of a traceback: the type and the message."""
    return traceback.format_exception_only(type(error), error)[-1].strip()


def has_users_frames(error: BaseException) -> bool:
    """Returns whether code outside of this package took part in raising an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(not _is_ours(frame.filename) for frame in frames)
