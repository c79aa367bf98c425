"""What ``import litserve.server`` finds."""

from __future__ import annotations

import inspect
import os
import warnings
from typing import Any

import litplex
from litplex import HTTPException, Request, Response, _options
from litplex.compat import _client
from litplex.compat._profile import LITSERVE
from litplex.compat.connector import _Connector

__all__ = ["LIT_SERVER_API_KEY", "HTTPException", "LitServer", "Request", "Response"]

#: The key that clients must send; a program may set it before it makes its server.
LIT_SERVER_API_KEY = os.environ.get("LIT_SERVER_API_KEY")

_UNSET: Any = inspect.Parameter.empty

# LitServe has no limit.
_ASYNC_CONCURRENCY = 1024


class LitServer(litplex.LitServer):
    """:class:`litplex.LitServer` with the order and the names of LitServe's arguments.

    Args:
        lit_api: A :class:`~litplex.LitAPI` or a list of them.
        accelerator: ``auto``, ``cpu``, ``cuda``, ``gpu`` or ``mps``. Default: ``auto``.
        devices: How many, or which. Default: ``auto``.
        workers_per_device: A number, a list with one for each API, or a mapping of their paths.
            Default: 1.
        timeout: Seconds that a request may wait for a worker; False, 0 or -1 is a day. What a
            worker has begun may take a day too. Where the program imports ``litplex``: seconds from
            the arrival of a request to its answer. Default: 30.
        **options: What else LitServe takes, and every option of litplex.

    Raises:
        ValueError: names every error and says what to do.
    """

    _profile = LITSERVE

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
        if "max_batch_size" in options or "batch_timeout" in options:
            warnings.warn(
                "'max_batch_size' and 'batch_timeout' are being deprecated in LitServer; give them "
                "to LitAPI",
                DeprecationWarning,
                stacklevel=2,
            )
        super().__init__(lit_api, **given, **options)
        self.lit_api = lit_api

    def setup_auth(self, lit_api: Any = None) -> Any:
        """Returns what a route of ``server.app`` depends on to let in those alone that an API does.

        Args:
            lit_api: The API. Default: the first.
        """
        from litplex._apphost import _app

        return _app.guard_of(self, lit_api or self.apis[0]) or _admit

    def _equip(self, api):
        super()._equip(api)
        is_async = getattr(api, "enable_async", False) and getattr(api, "max_batch_size", 1) == 1
        if is_async and api.max_concurrency is None:
            api.max_concurrency = api._chosen_concurrency = _ASYNC_CONCURRENCY

    @property
    def healthcheck_path(self) -> str:
        """The path that tells whether the server is well."""
        return self._path_of("healthcheck_path")

    @property
    def info_path(self) -> str:
        """The path that tells what is served."""
        return self._path_of("info_path")

    @property
    def shutdown_path(self) -> str:
        """The path that stops the server, which is empty where none does."""
        return self._path_of("shutdown_path")

    def _path_of(self, option):
        default = next(known["default"] for known in _options.TABLE if known["name"] == option)
        return self.server_options.get(option, default)

    @property
    def devices(self) -> list[Any]:
        """The devices, as LitServe has them: ``["cpu"]``, or ``[["cuda:0"], …]``."""
        connector = self._connector
        if connector.accelerator == "cpu":
            return ["cpu"]
        given = connector.devices
        numbers = range(given) if isinstance(given, int) else given
        return [self.device_identifiers(connector.accelerator, number) for number in numbers]

    @property
    def _connector(self) -> _Connector:
        asked = (self.options.get(name, "auto") for name in ("accelerator", "devices"))
        return _Connector(*asked)

    @staticmethod
    def device_identifiers(accelerator: str, device: int | list[int]) -> list[str]:
        """Returns the names of the devices of these numbers, such as ``cuda:0``."""
        numbers = device if isinstance(device, (list, tuple)) else [device]
        return [f"{accelerator}:{number}" for number in numbers]

    @staticmethod
    def generate_client_file(port: int | str = 8000) -> None:
        """Writes ``client.py`` into the working directory, unless there is one, as ``run`` does."""
        _client.write_client(os.getcwd(), f"http://127.0.0.1:{port}/predict")


def _admit():
    """Lets everybody in."""
