"""Records of ``logging``, warnings and tracebacks as JSON objects, each on one line.

The server takes over the level, the message and the other fields of such a line
(``crates/workers/src/python/record.rs``). It is imported where ``LITPLEX_LOG_FORMAT`` is ``json``.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import sys
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

# The server cuts lines at 64 KiB, and a cut line is not JSON. A character takes at most 12 bytes.
_MOST_CHARACTERS = 5000

_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_plain = logging.Formatter()


def begin() -> None:
    """Makes objects of the records of ``logging``, of warnings and of tracebacks from here on."""
    handler: Any = logging.StreamHandler
    handler.emit = _emitting_objects(handler.emit)
    traces: Any = traceback
    traces.print_exception = _printing_objects(traces.print_exception)
    warned: Any = warnings
    warned.showwarning = _showing_objects(warned.showwarning)
    sys.excepthook = _report_uncaught
    threading.excepthook = _report_uncaught_in_thread


def report(text: str) -> None:
    """Prints an error, of any number of lines, as one object."""
    _print(sys.stderr, "ERROR", text)


def _emitting_objects(emit: Any) -> Any:
    @functools.wraps(emit)
    def emit_object(handler: logging.StreamHandler[Any], record: logging.LogRecord) -> None:
        if not _is_standard(handler.stream):
            emit(handler, record)
            return
        try:
            _print_record(handler, record)
        except Exception:  # noqa: BLE001  (as `emit` does it)
            handler.handleError(record)

    return emit_object


def _is_standard(stream: IO[str]) -> bool:
    return stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)


def _print_record(handler: logging.StreamHandler[Any], record: logging.LogRecord) -> None:
    text = _plain.format(record) if _adds_only_a_head(handler) else handler.format(record)
    # A program may format its records as objects itself.
    if text.startswith("{") and not _adds_only_a_head(handler):
        handler.stream.write(text + handler.terminator)
        handler.flush()
        return
    given = {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD}
    _print(handler.stream, record.levelname, text, {"logger": record.name, **given})


def _adds_only_a_head(handler: logging.StreamHandler[Any]) -> Any:
    """Returns whether the handler's format puts no more around the message than what the object
    says in fields of its own: the time, the level, the logger."""
    if type(handler).format is not logging.Handler.format:
        return False
    return handler.formatter is None or type(handler.formatter).format is logging.Formatter.format


def _printing_objects(print_exception: Any) -> Any:
    @functools.wraps(print_exception)
    def print_object(*args: Any, file: Any = None, **options: Any) -> None:
        # `file` may be the fifth.
        if len(args) > 4 or not (file is None or _is_standard(file)):
            rest = {} if file is None else {"file": file}
            print_exception(*args, **rest, **options)
            return
        text = io.StringIO()
        print_exception(*args, file=text, **options)
        _print(sys.stderr if file is None else file, "ERROR", text.getvalue())

    return print_object


def _showing_objects(show: Any) -> Any:
    @functools.wraps(show)
    def show_object(
        message: Warning | str,
        category: Any,
        filename: str,
        lineno: Any,
        file: Any = None,
        line: Any = None,
    ) -> None:
        if file is not None and not _is_standard(file):
            show(message, category, filename, lineno, file, line)
            return
        text = warnings.formatwarning(message, category, filename, lineno, line)
        _print(sys.stderr if file is None else file, "WARNING", text)

    return show_object


def _report_uncaught(kind: Any, error: BaseException, trace: TracebackType | None) -> None:
    report("".join(traceback.format_exception(kind, error, trace)))


def _report_uncaught_in_thread(args: Any) -> None:
    # A thread may end itself so.
    if args.exc_type is SystemExit:
        return
    name = "an unknown thread" if args.thread is None else f"thread {args.thread.name}"
    trace = traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
    report(f"Exception in {name}:\n{''.join(trace)}")


def _print(stream: IO[str], level: str, text: str, fields: dict[str, Any] | None = None) -> None:
    text = text.rstrip("\n").encode(errors="backslashreplace").decode()
    for at in range(0, max(len(text), 1), _MOST_CHARACTERS):
        piece = {"level": level, "message": text[at : at + _MOST_CHARACTERS], **(fields or {})}
        if at:
            piece["continued"] = True
        stream.write(_encoded(piece) + "\n")
    stream.flush()


def _encoded(fields: dict[str, Any]) -> Any:
    try:
        return json.dumps(fields, allow_nan=False, default=str)
    except (TypeError, ValueError, RecursionError):
        # The program has added a value that JSON cannot hold.
        return json.dumps({name: str(value) for name, value in fields.items()})
