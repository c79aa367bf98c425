"""Background tasks of Starlette's responses, which run once the response is sent.

It is imported by the first answer that has one.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any

from litplex._launched.tracebacks import print_of
from litplex._worker import current

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def run(background: Any) -> None:
    """Runs a background task, or several; what one raises is logged, no more."""
    # The request is answered.
    current.set_none()
    try:
        result = background()
        if hasattr(result, "__await__"):
            await result
    except BaseException as error:  # noqa: BLE001  (the answer is sent; it can fail nothing else)
        print("a background task raised:", file=sys.stderr)
        print_of(error)


@functools.lru_cache(None)
def _loop() -> Any:
    """Returns an event loop on a thread of its own, for workers whose hooks are plain."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="litplex-background", daemon=True).start()
    return loop


def settled(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Returns the result of a coroutine; itself, to be awaited, where an event loop is running."""
    if asyncio._get_running_loop() is not None:
        return coroutine
    return asyncio.run_coroutine_threadsafe(coroutine, _loop()).result()


_under_way = set()


def start(background: Any) -> None:
    """Runs a background task on a thread of its own, beside the model."""
    future = asyncio.run_coroutine_threadsafe(run(background), _loop())
    _under_way.add(future)
    future.add_done_callback(_under_way.discard)


def finish() -> None:
    """Waits for the background tasks that are under way."""
    for future in list(_under_way):
        future.result()
