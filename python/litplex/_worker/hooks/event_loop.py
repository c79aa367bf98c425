"""The one event loop of a worker whose hooks are ``async``; it is not imported for others."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@functools.lru_cache(None)
def get() -> asyncio.AbstractEventLoop:
    """Returns the loop; ``setup``, requests and ``teardown`` run on the same."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def each(outputs: Any) -> Iterator[Any]:
    """Yields what an ``async`` generator does, where hooks are plain."""
    loop, outputs = get(), outputs.__aiter__()
    try:
        while True:
            try:
                output = loop.run_until_complete(_next(outputs))
            except StopAsyncIteration:
                return
            yield output
    finally:
        if hasattr(outputs, "aclose"):
            loop.run_until_complete(outputs.aclose())


async def _next(outputs: Any) -> Any:
    return await outputs.__anext__()


def close() -> None:
    """Cancels what the model's hooks left running, as ``asyncio.run`` does."""
    loop = get()
    loop.run_until_complete(_cancel_all())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def _cancel_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
