"""The one event loop of a worker whose hooks are ``async``; it is not imported for others."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

#: Held by the thread that runs the loop, where hooks are plain: that of the model for an ``async``
#: generator, another one for ``health``.
turn = threading.Lock()


@functools.lru_cache(None)
def get() -> asyncio.AbstractEventLoop:
    """Returns the loop; ``setup``, requests and ``teardown`` run on the same."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def run(result: Awaitable[Any]) -> Any:
    """Returns the result of a hook where the loop does not run, or runs for another hook."""
    with turn:
        return get().run_until_complete(result)


def each(outputs: Any) -> Iterator[Any]:
    """Yields what an ``async`` generator does, where hooks are plain."""
    outputs = outputs.__aiter__()
    try:
        while True:
            try:
                output = run(_next(outputs))
            except StopAsyncIteration:
                return
            yield output
    finally:
        if hasattr(outputs, "aclose"):
            run(outputs.aclose())


async def _next(outputs: Any) -> Any:
    return await outputs.__anext__()


def close() -> None:
    """Cancels what the model's hooks left running, as ``asyncio.run`` does."""
    run(_cancel_all())
    run(get().shutdown_asyncgens())
    get().close()


async def _cancel_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
