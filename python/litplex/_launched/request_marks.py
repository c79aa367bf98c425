"""Output of hooks, each line marked with the requests in computation.

The server removes the marks; ``protocol/PROTOCOL.md`` has their format.
"""

from __future__ import annotations

import contextvars
import io
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class HasContext(Protocol):
        """An item of work, as far as its mark needs it."""

        @property
        def context(self) -> Any: ...


# The most characters of the names in a mark. Those of a batch with longer names are cut.
_NAMES_CHARACTERS = 16 * 1024
# The most characters of a line that wait for its end.
_MOST_HELD = 8192

#: The name of the request that the current thread, or task, computes, or the names of several;
#: empty for none. They are set for each request, and rarely printed.
_names: contextvars.ContextVar[str | tuple[str, ...]] = contextvars.ContextVar(
    "litplex_names", default=""
)
_begin = ""
_kept: list[io.TextIOWrapper] = []


def mark(secret: str) -> None:
    """Marks all later output; the secret distinguishes the marks from other text. Called again, it
    changes the secret: handlers of `logging` keep the streams that they began with."""
    global _begin
    _begin = f"\x1e{secret}"
    if _kept:
        return
    sys.stdout = MarkedStream(sys.stdout)
    sys.stderr = MarkedStream(sys.stderr)
    # A program may replace them by a stream around their buffer, which they would close when they
    # are collected.
    _kept.extend((sys.stdout, sys.stderr))


def structure() -> None:
    """Prints each later record and traceback as an object, if the log is in JSON."""
    global _report
    if os.environ.get("LITPLEX_LOG_FORMAT") == "json":
        from litplex._launched import log_records

        log_records.begin()
        _report = log_records.report


def report(text: str) -> None:
    """Prints an error, of any number of lines."""
    _report(text)


def _print_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_report = _print_error


def log_from(level: str) -> None:
    """Sets the level of ``logging`` until the program does, also where nothing handles records."""
    import logging

    logging.getLogger().setLevel(level.upper())
    if logging.lastResort is not None:
        logging.lastResort.setLevel(level.upper())


def set_current_requests(items: Iterable[HasContext]) -> None:
    """Sets the requests of these items as those that the current thread, or task, computes."""
    contexts = [item.context for item in items]
    names = [context._name for context in contexts if context is not None and context._name]
    set_current_request(names[0] if len(names) == 1 else tuple(names))


#: Sets the name of the request that the current thread, or task, computes; ``""`` for none.
set_current_request = _names.set


def _current_mark() -> str:
    names = _names.get()
    if not names:
        return ""
    if type(names) is tuple:
        names = " ".join(names)[:_NAMES_CHARACTERS]
    return f"{_begin}{names}\x1f"


class _Held(threading.local):
    """The beginning of a line, and its mark."""

    mark = ""
    text = ""


class MarkedStream(io.TextIOWrapper):
    """A text stream that writes a mark in front of each line of a request.

    Lines of different threads do not mix. A ``flush``, or a progress bar's carriage return, writes
    the begun line of its thread. Text outside of requests is written at once.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors=stream.errors,
            newline="\n",
            write_through=True,
        )
        # It would close the buffer once it is collected.
        self._stream = stream
        self._held = _Held()

    def write(self, text: str) -> int:
        """Takes a text; returns its length."""
        held, mark = self._held, _current_mark()
        begun = held.text
        if not (mark or begun):
            return super().write(text)
        if begun and held.mark != mark:
            self._release()
            begun = ""
        whole = begun + text
        if "\n" not in text:
            held.mark, held.text = mark, whole
        else:
            lines, _, held.text = whole.rpartition("\n")
            held.mark = mark
            self._write(mark, lines, "\n")
        if len(held.text) > _MOST_HELD or "\r" in held.text:
            self._release()
        return len(text)

    def flush(self) -> None:
        """Writes what there is of a line."""
        if self._held.text:
            self._release()
        super().flush()

    def _release(self) -> None:
        text, self._held.text = self._held.text, ""
        self._write(self._held.mark, text, "")

    def _write(self, mark: str, text: str, newline: str) -> None:
        if mark:
            text = mark + text.replace("\n", "\n" + mark)
        super().write(text + newline)
