"""The way from a handle to the server: set in workers, and nowhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from litplex._calls.call import Call
    from litplex._calls.types import CallTypes


class Target(NamedTuple):
    """The callee of a call.

    Attributes:
        name: Its path, or its name.
        timeout: The most seconds that a call may take; None for the rest of the caller's budget.
        shown: The handle as the program writes it, for messages.
        types: The types that the handle declares, if any.
    """

    name: str
    timeout: float | None
    shown: str
    types: CallTypes | None = None


class Transport(Protocol):
    """The maker of calls. The plain forms block, and may be used from several threads."""

    def call(self, target: Target, x: Any) -> Any: ...

    def later(self, target: Target, x: Any) -> Call: ...

    def stream(self, target: Target, x: Any) -> Iterator[Any]: ...

    def map(
        self, target: Target, items: Iterable[Any], in_flight: int, return_exceptions: bool
    ) -> Iterator[Any]: ...

    async def acall(self, target: Target, x: Any) -> Any: ...

    def astream(self, target: Target, x: Any) -> AsyncIterator[Any]: ...

    def amap(
        self, target: Target, items: Any, in_flight: int, return_exceptions: bool
    ) -> AsyncIterator[Any]: ...


#: The error of a call in a process that a hook forked off.
FORKED = (
    "a process that a hook started cannot call endpoints; return its result to the hook, and call "
    "there"
)

#: Returns the transport of this worker; None in every other process.
provider: Callable[[], Transport] | None = None


def transport(target: Target) -> Transport:
    """Returns the transport of this worker.

    Raises:
        RuntimeError: no call can be made here; the message says why.
    """
    if provider is None:
        shown = target.shown
        raise RuntimeError(
            f"`{shown}` calls the endpoint `{target.name}` of a server, and this process is no "
            f"worker of one; in a test, replace it by a function: `{shown} = lambda x: …`, with "
            "the model in place of `self`"
        )
    return provider()


def running_loop() -> Any:
    """Returns the event loop that runs on this thread, or None; it imports nothing."""
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()


def refuse_on_loop(blocking: str, instead: str) -> None:
    """Raises a RuntimeError where a blocking form would stop the event loop."""
    if running_loop() is not None:
        raise RuntimeError(
            f"`{blocking}` blocks, and this thread runs an event loop; write `{instead}`"
        )
