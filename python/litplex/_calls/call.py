"""Calls that were begun, and the wait for several of them."""

from __future__ import annotations

import abc
from collections.abc import Generator
from typing import Any

from litplex._calls.transport import refuse_on_loop


class Call(abc.ABC):
    """A call that was begun by ``later``. An ``async`` hook awaits it: ``await call``.

    A call whose result is never asked for is cancelled when its hook has returned.
    """

    @abc.abstractmethod
    def result(self) -> Any:
        """Waits for the result and returns it.

        Raises:
            CallError: the call failed.
            RuntimeError: this thread runs an event loop.
        """

    @abc.abstractmethod
    def done(self) -> bool:
        """Returns whether the result, or the error, is there."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """Cancels the call, unless it is done. Its ``result`` is then a CallError of status 499."""

    @abc.abstractmethod
    def __await__(self) -> Generator[Any, None, Any]: ...

    @abc.abstractmethod
    def _wait_with(self, others: list[Call], all_of_them: bool) -> None:
        """Waits for this and the other calls, or, unless for all of them, until one fails."""


def gather(*calls: Call, return_exceptions: bool = False) -> list[Any]:
    """Waits for calls, and returns their results in the order of the arguments.

    Args:
        calls: What ``later`` returned.
        return_exceptions: Whether the list has the exceptions of calls that failed. Default: False,
            the first exception is raised, and the calls that are not done are cancelled.

    Raises:
        CallError: a call failed.
        TypeError: an argument is not a call.
        RuntimeError: this thread runs an event loop.
    """
    for call in calls:
        if not isinstance(call, Call):
            raise TypeError(
                f"`gather` takes calls, as `later` returns them, not {_shown(call)}: "
                "`ls.gather(self.a.later(x), self.b.later(y))`"
            )
    refuse_on_loop("ls.gather(a, b)", "await asyncio.gather(a, b)")
    if not calls:
        return []
    try:
        calls[0]._wait_with(list(calls[1:]), return_exceptions)
        return [_outcome(call, return_exceptions) for call in _failed_first(calls)]
    except BaseException:
        for call in calls:
            call.cancel()
        raise


def _failed_first(calls: tuple[Call, ...]) -> tuple[Call, ...]:
    """Returns the calls; raises the error of one that failed while others are not done."""
    if not all(call.done() for call in calls):
        for call in calls:
            if call.done():
                call.result()
    return calls


def _outcome(call: Call, return_exceptions: bool) -> Any:
    try:
        return call.result()
    except Exception as error:
        if not return_exceptions:
            raise
        return error


def _shown(value: Any) -> str:
    if hasattr(value, "__await__"):
        return "a coroutine (of `acall`)"
    return f"a {type(value).__name__}"
