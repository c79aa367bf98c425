"""The error of a call that failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# The statuses of a callee that are also the statuses of its caller: the request may be sent again,
# or its time is over. All others are errors of the program, not of its clients.
_KEPT = frozenset((499, 503, 504, 508))


class CallError(Exception):
    """A call of another endpoint failed.

    A hook that does not catch it fails: its client gets the status 503, 504 or 508 of the callee,
    with its ``Retry-After``, and 500 for every other status.

    Args:
        status: The HTTP status of the callee's response, 400 or above.
        detail: The ``detail`` of that response.
        calls: The path of calls, from the endpoint of the client's request to the one that failed:
            ``["/ask#0", "/ocr"]``.
        retry_after: The seconds after which the callee may have room; None if it did not say.
    """

    def __init__(
        self,
        status: int,
        detail: Any = None,
        calls: Sequence[str] = (),
        retry_after: str | None = None,
    ) -> None:
        super().__init__(status, detail, calls, retry_after)
        self.status = status
        self.detail = detail
        self.calls = list(calls)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.path or 'the call'} failed with {self.status}: {self.detail}"

    @property
    def path(self) -> str:
        """The path of calls as a text: ``/ask#0 → /ocr``."""
        return " → ".join(self.calls)

    @property
    def own_status(self) -> int:
        """The status of the response of a hook that does not catch the error."""
        return self.status if self.status in _KEPT else 500

    @property
    def own_detail(self) -> str:
        """The ``detail`` of that response: without the callee's own, unless the server said it."""
        if self.status in _KEPT:
            return str(self)
        return f"Internal server error: {self.path or 'a call'} failed with {self.status}"
