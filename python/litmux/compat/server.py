"""What ``import litserve.server`` finds."""

from __future__ import annotations

import inspect
import os
from typing import Any

import litmux
from litmux import HTTPException, Request, Response

__all__ = ["LIT_SERVER_API_KEY", "HTTPException", "LitServer", "Request", "Response"]

#: The key that clients must send; a program may set it before it makes its server.
LIT_SERVER_API_KEY = os.environ.get("LIT_SERVER_API_KEY")

_UNSET: Any = inspect.Parameter.empty


class LitServer(litmux.LitServer):
    """:class:`litmux.LitServer` with the order and the names of LitServe's arguments.

    Args:
        lit_api: A :class:`~litmux.LitAPI` or a list of them.
        accelerator: ``auto``, ``cpu``, ``cuda``, ``gpu`` or ``mps``. Default: ``auto``.
        devices: How many, or which. Default: ``auto``.
        workers_per_device: A number, a list with one for each API, or a mapping of their paths.
            Default: 1.
        timeout: Seconds that a request may wait for a worker; False, 0 or -1 is a day. What a
            worker has begun may take a day too. Where the program imports ``litmux``: seconds from
            the arrival of a request to its answer. Default: 30.
        **options: What else LitServe takes, and every option of litmux.

    Raises:
        ValueError: names every mistake and says what to do.
    """

    def __init__(
        self,
        lit_api: Any,
        accelerator: Any = _UNSET,
        devices: Any = _UNSET,
        workers_per_device: Any = _UNSET,
        timeout: Any = _UNSET,
        **options: Any,
    ) -> None:
        first = {
            "accelerator": accelerator,
            "devices": devices,
            "workers_per_device": workers_per_device,
            "timeout": timeout,
        }
        given = {name: value for name, value in first.items() if value is not _UNSET}
        super().__init__(lit_api, **given, **options)
        self.lit_api = lit_api

    def setup_auth(self, lit_api: Any = None) -> Any:
        """Returns what a route of ``server.app`` depends on to let in those alone that an API does.

        Args:
            lit_api: The API. Default: the first.
        """
        from litmux._apphost import _app

        return _app._guard_of(lit_api or self.apis[0]) or _admit


def _admit():
    """Lets everybody in."""
