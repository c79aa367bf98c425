"""The result of the model's ``health`` while it serves."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

from litplex._launched.tracebacks import print_of
from litplex._worker import current

if TYPE_CHECKING:
    from collections.abc import Callable

WELL, UNWELL = 200, 503

_LONGEST_WAIT_SECONDS = 5.0


class Health:
    """Asks the model whether it is well, and keeps what it said last.

    Args:
        api: The model.
        runs_loop: Whether the event loop runs while the model serves, because its hooks are
            ``async``.

    Attributes:
        status: ``WELL`` or ``UNWELL``.
    """

    def __init__(self, api: Any, *, runs_loop: bool) -> None:
        self._health = api.health
        self._runs_loop = runs_loop
        self._due = threading.Event()
        self._is_over = False
        self._thread: threading.Thread | None = None
        self._cancel: Callable[[], Any] = lambda: None
        self.status = WELL
        self.status = self._ask()

    def refresh(self) -> None:
        """Has the model asked soon, on a thread of its own: it may take its time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="litplex-health", daemon=True)
            self._thread.start()
        self._due.set()

    def end(self) -> None:
        """Asks no more, and cancels a hook that waits on the event loop: what it needs may be torn
        down."""
        self._is_over = True
        self._due.set()
        self._cancel()

    def wait(self) -> None:
        """Blocks until no hook runs any more, after :meth:`end`, for a few seconds at most."""
        if self._thread is not None:
            self._thread.join(_LONGEST_WAIT_SECONDS)

    def _follow(self) -> None:
        current.set_none()
        while self._due.wait() and not self._is_over:
            self._due.clear()
            self.status = self._ask()

    def _ask(self) -> Any:
        try:
            answer = self._health()
            is_well = self._settle(answer) if hasattr(answer, "__await__") else answer
        except BaseException as error:  # noqa: BLE001  (whatever the user's hook raises)
            if self.status == WELL and not self._is_over:
                print_of(error)
            return UNWELL
        return WELL if is_well else UNWELL

    def _settle(self, answer: Any) -> Any:
        """Returns what an ``async`` hook returns; it runs where the model's other hooks do."""

        async def wait() -> Any:
            current.set_none()
            return await answer

        if "litplex._worker.hooks.event_loop" not in sys.modules:
            return asyncio.run(wait())
        from litplex._worker.hooks import event_loop

        loop = event_loop.get()
        if self._runs_loop and self._thread is not None:
            # Another thread is about to run the loop, if it does not yet.
            future = asyncio.run_coroutine_threadsafe(wait(), loop)
            self._let_end(future.cancel)
            return future.result()
        with event_loop.turn:
            task = loop.create_task(wait())
            self._let_end(lambda: loop.call_soon_threadsafe(task.cancel))
            return loop.run_until_complete(task)

    def _let_end(self, cancel: Callable[[], Any]) -> None:
        """Lets :meth:`end` cancel what is asked now."""
        self._cancel = cancel
        if self._is_over:
            cancel()
