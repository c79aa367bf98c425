"""The connection for calls, from the first call on; until then, and where there is none, why."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from litplex._calls import transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from litplex._worker.calls.caller import Caller


class Provider:
    """Gives the handles of this worker what makes their calls.

    Args:
        dial: Opens a connection for calls; returns its socket and the reader of its frames.
        takes_calls: Whether the server takes calls.
        credit: The bytes of a stream that the server may send before it is granted more.
        is_cancelled: Returns whether an item of these ids was cancelled.
    """

    def __init__(
        self,
        dial: Callable[[], tuple[Any, Any]],
        takes_calls: bool,
        credit: int,
        is_cancelled: Callable[[Iterable[int]], bool],
    ) -> None:
        self._dial = dial
        self._takes_calls = takes_calls
        self._credit = credit
        self._is_cancelled = is_cancelled
        self._process = os.getpid()
        self._opening = threading.Lock()
        self._caller: Caller | None = None
        #: Whether requests may come: ``setup`` has returned.
        self.is_serving = False

    def __call__(self) -> Caller:
        """Returns what makes calls.

        Raises:
            RuntimeError: no call can be made here; the message says why.
        """
        if os.getpid() != self._process:
            raise RuntimeError(transport.FORKED)
        caller = self._caller
        return caller if caller is not None and not caller.is_lost() else self._open()

    def _open(self) -> Caller:
        if not self.is_serving:
            raise RuntimeError(
                "`setup` cannot call endpoints, which may not be ready before this worker is; call "
                "in a hook that requests pass"
            )
        if not self._takes_calls:
            raise RuntimeError("this server takes no calls of hooks; update litplex")
        from litplex._worker.calls.caller import Caller

        with self._opening:
            if self._caller is None or self._caller.is_lost():
                try:
                    sock, reader = self._dial()
                except (OSError, SystemExit) as error:
                    raise RuntimeError(f"no call can be made: {error}") from None
                self._caller = Caller(sock, reader, self._credit, self._is_cancelled)
            return self._caller


def install(provider: Provider) -> None:
    """Lets the handles of this process make calls."""
    transport.provider = provider
