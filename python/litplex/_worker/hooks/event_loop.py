"""The one event loop of a worker whose hooks are ``async``; it is not imported for others."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from concurrent.futures import Future

# Held by the thread that runs the loop, where hooks are plain: that of the model for an `async`
# generator, another one for `health`.
_turn = threading.Lock()

# The time between two looks whether a coroutine is done that another thread runs.
_LOOK_SECONDS = 0.002

# The longest time to wait at the end for a hook of another thread that blocks the loop.
_LONGEST_BLOCK_SECONDS = 5.0


@functools.lru_cache(None)
def get() -> asyncio.AbstractEventLoop:
    """Returns the loop; ``setup``, requests and ``teardown`` run on the same."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def run(result: Awaitable[Any]) -> Any:
    """Runs an awaitable on the loop, and returns its result.

    Raises:
        RuntimeError: this thread already runs an event loop.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("what runs on the event loop cannot wait for it")
    if not _turn.acquire(blocking=False):
        return run_until_done(asyncio.run_coroutine_threadsafe(_awaited(result), get()))
    try:
        return get().run_until_complete(result)
    finally:
        _turn.release()


def run_until_done(future: Future[Any]) -> Any:
    """Returns the result of a coroutine that was submitted to the loop from this thread. Runs the
    loop while no other thread does."""
    while not _turn.acquire(timeout=_LOOK_SECONDS):
        if future.done():
            return future.result()
    try:
        return get().run_until_complete(asyncio.wrap_future(future, loop=get()))
    finally:
        _turn.release()


def is_blocked() -> bool:
    """Returns whether another thread runs the loop."""
    return _turn.locked()


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


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
    if not _turn.acquire(timeout=_LONGEST_BLOCK_SECONDS):
        return
    try:
        loop = get()
        loop.run_until_complete(_cancel_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    finally:
        _turn.release()


async def _cancel_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
