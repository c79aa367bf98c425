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
        # Whether the hook is called on a thread of its own; the first call is on the model's.
        self._has_own_thread = False
        self._cancel: Callable[[], Any] = lambda: None
        # The task of an `async` hook on the event loop.
        self._task: asyncio.Task[Any] | None = None
        self.status = WELL
        self.status = self._ask()

    def refresh(self) -> None:
        """Has the model asked soon, on a thread of its own: it may take its time."""
        if self._thread is None:
            self._has_own_thread = True
            thread = threading.Thread(target=self._follow, name="litplex-health", daemon=True)
            thread.start()
            # Not before: :meth:`wait` joins it.
            self._thread = thread
        self._due.set()

    def end(self) -> None:
        """Asks no more, and cancels an ``async`` hook that waits. What it needs may end."""
        self._is_over = True
        self._due.set()
        self._cancel()

    def wait(self, seconds: float) -> bool:
        """Blocks until no hook runs any more, after :meth:`end`, for so long at most.

        Returns:
            Whether the event loop is free.
        """
        if self._thread is None:
            return True
        self._thread.join(seconds)
        if self._task is None:
            return True
        from litplex._worker.hooks import event_loop

        if event_loop.is_blocked():
            return False
        if not self._task.done():
            # It was cancelled: its `finally` blocks run now.
            event_loop.run(asyncio.wait({self._task}, timeout=seconds))
        return True

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

        has_begun = False

        async def wait_in_task() -> Any:
            nonlocal has_begun
            has_begun, self._task = True, asyncio.current_task()
            return await wait()

        future = asyncio.run_coroutine_threadsafe(wait_in_task(), event_loop.get())
        self._let_end(future.cancel)
        try:
            if self._runs_loop and self._has_own_thread:
                # Another thread is about to run the loop, if it does not yet.
                return future.result()
            return event_loop.run_until_done(future)
        finally:
            if not has_begun and asyncio.iscoroutine(answer):
                # Cancelled before its first step; Python would warn that it was never awaited.
                answer.close()

    def _let_end(self, cancel: Callable[[], Any]) -> None:
        """Lets :meth:`end` cancel what is asked now."""
        self._cancel = cancel
        if self._is_over:
            cancel()
