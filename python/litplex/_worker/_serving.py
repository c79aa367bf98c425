"""A model that is set up, from its link to the server to the end of that link."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from litplex._launched import request_marks
from litplex._worker._link import Link
from litplex._worker.control.control import Control

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from litplex._launched.sources import Sources
    from litplex._worker.calls.provider import Provider
    from litplex._worker.control.registry import Registry
    from litplex._worker.hooks.hooks import Hooks
    from litplex._worker.wire import frames


# The longest time, in seconds, to wait for `health` before the worker hibernates, or ends.
_HEALTH_BEFORE_HIBERNATION, _HEALTH_BEFORE_THE_END = 5.0, 1.0


class Serving:
    """A model that is set up, while it serves through one link."""

    def __init__(
        self,
        link: Link,
        setup: dict[str, Any],
        api: Any,
        hooks: Hooks,
        health: Any,
        registry: Registry,
        provider: Provider,
        sources: Sources,
    ) -> None:
        self._link, self._provider, self._health = link, provider, health
        self._may_hibernate = may_hibernate(setup)
        self._loop = _make_loop(link.data, link.reader, hooks, registry)
        self._follower = Control(
            link.control,
            link.control_reader,
            link.data,
            registry,
            hooks,
            health=health,
            sends_metrics=setup.get("metrics", False),
            sources=sources,
        )
        if setup.get("patches"):
            from litplex._worker.live.patches import Patches

            patches = Patches(api, sources, self._follower.send)
            self._loop.patches = self._follower.patches = patches

    def begin(self, ready: Any) -> None:
        """Tells the server that the worker is ready.

        Raises:
            ConnectionError: the server is gone.
        """
        self._follower.start()
        self._provider.is_serving = True
        self._link.data.sendall(ready)

    def run(self) -> bool:
        """Serves until the server wants no more; returns whether the worker is to hibernate."""
        try:
            self._loop.run()
            if self._may_hibernate:
                self._follower.wait_for_farewell()
        finally:
            if self._health is not None:
                self._health.end()
        hibernates = self._follower.hibernates
        # A hook of it may run on the event loop, which `teardown` and the next loop need.
        seconds = _HEALTH_BEFORE_HIBERNATION if hibernates else _HEALTH_BEFORE_THE_END
        is_free = self._health is None or self._health.wait(seconds)
        if not hibernates:
            return False
        if not is_free:
            print("ends and does not hibernate: `health` blocks the event loop", file=sys.stderr)
            return False
        self._loop.end()
        finish_background_tasks()
        self._send_metrics()
        self._link.close()
        return True

    def end(self) -> None:
        """Ends the link after `teardown`.

        Raises:
            FrameError: the server broke the protocol.
        """
        if self._follower.hibernates:
            return
        self._send_metrics()
        if self._follower.error is not None:
            raise self._follower.error
        self._link.control.close()

    def _send_metrics(self) -> None:
        with contextlib.suppress(OSError):
            self._follower.send_metrics()


def hibernate(order: dict[str, Any], device: str) -> Link | None:
    """Moves the memory of this process to swap and connects again, which tells the server to
    stop the process. Returns the link once it is woken; None if it is to end.

    Args:
        order: the order of the worker.
        device: the device of its model; only that of a GPU has memory to move to the host first.
    """
    request_marks.set_current_requests(())
    if device == "cpu":
        return _sleep(order)
    with _without_collections():
        return _sleep_off_gpus(order)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Collects garbage now and not within: a destructor that calls CUDA while it is locked would
    wait forever."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _sleep_off_gpus(order: dict[str, Any]) -> Link | None:
    from litplex._worker import _cuda

    try:
        is_off_gpus = _cuda.checkpoint()
    except _cuda.CheckpointError as error:
        print(f"ends and does not hibernate: {error}", file=sys.stderr)
        return None
    link = _sleep(order)
    if not is_off_gpus:
        return link
    if link is None:
        # Others may have its room there, and without it a `teardown` that uses CUDA waits.
        _leave(0)
    try:
        _cuda.restore()
    except _cuda.CheckpointError as error:
        print(f"ends, because its memory cannot be moved back: {error}", file=sys.stderr)
        _leave(1)
    return link


def _sleep(order: dict[str, Any]) -> Link | None:
    from litplex._worker import _swap

    resident = _swap.page_out()
    link = Link(order)
    if link.wait_for_setup() is None:
        return None
    _swap.page_in(resident)
    return link


def _leave(status: int) -> NoReturn:
    """Ends this process without anything that could call CUDA, such as destructors."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def may_hibernate(setup: dict[str, Any]) -> bool:
    """Returns whether the server may ask this worker to hibernate."""
    if not setup.get("hibernates"):
        return False
    from litplex._worker import _cuda, _swap

    return _swap.is_possible() and _cuda.can_checkpoint(setup["device"])


def finish_background_tasks() -> None:
    """Waits for what responses left running."""
    if "litplex._worker.wire.background_tasks" in sys.modules:
        from litplex._worker.wire import background_tasks

        background_tasks.finish()


def _make_loop(
    data: socket.socket, reader: frames.FrameReader, hooks: Hooks, registry: Registry
) -> Any:
    """Returns the loop that fits the hooks; what the others need is not imported."""
    if hooks.is_continuous:
        from litplex._worker.loops.continuous import ContinuousLoop

        return ContinuousLoop(data, reader, hooks, registry)
    if hooks.is_async:
        from litplex._worker.loops.async_loop import AsyncLoop

        return AsyncLoop(data, reader, hooks, registry)
    from litplex._worker.loops.loop import Loop

    return Loop(data, reader, hooks, registry)
