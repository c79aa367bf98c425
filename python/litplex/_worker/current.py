"""The requests that hooks compute: a call is made for them."""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Protocol

    class HasId(Protocol):
        @property
        def id(self) -> int: ...


#: The ids of the requests that a loop which computes one request or batch after the other computes
#: now, or a single id; None for none. The threads that its hooks start compute for them, too.
shared: Any = None
#: Whether the loop of this worker sets ``shared``.
is_shared = True
# The ids that the current task computes, on an event loop; an empty tuple says that the current
# thread, or task, computes no request, whatever others do.
_ids: contextvars.ContextVar[Any] = contextvars.ContextVar("litplex_current", default=None)


def set_items(items: Iterable[HasId]) -> None:
    """Sets the requests that the current hook computes."""
    global shared
    ids = tuple([item.id for item in items])
    if is_shared:
        shared = ids
    else:
        _ids.set(ids)


def set_none() -> None:
    """Notes that the current thread, or task, computes no request."""
    _ids.set(())


def ids() -> Any:
    """Returns the ids of the requests that are computed here; empty for none."""
    found = _ids.get()
    if found is None:
        found = shared
    if found is None:
        return ()
    return found if type(found) is tuple else (found,)
