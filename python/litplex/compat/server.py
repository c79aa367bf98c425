"""The module ``litserve.server``."""

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

#: The key that clients must send; a program may set it before it creates its server.
LIT_SERVER_API_KEY = os.environ.get("LIT_SERVER_API_KEY")

_UNSET: Any = inspect.Parameter.empty

# LitServe has no limit.
_ASYNC_CONCURRENCY = 1024


class LitServer(litplex.LitServer):
    """:class:`litplex.LitServer` with the order and the names of LitServe's arguments.

    Args:
        lit_api: A :class:`~litplex.LitAPI` or a list of them.
        accelerator: ``auto``, ``cpu``, ``cuda``, ``gpu`` or ``mps``. Default: ``auto``.
        devices: The number of devices, or a list of their indices. Default: ``auto``.
        workers_per_device: A number, a list of a number for each API, or a mapping of paths to
            numbers. Default: 1.
        timeout: The seconds that a request may wait for a worker; False, 0 or -1 is a day. A
            request that a worker has begun may take a day, too. Default: 30.
        **options: The other arguments of LitServe, and every option of litplex.

    Raises:
        ValueError: names every error and what to do.
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
        """Returns the dependency that guards an API, for other routes of ``server.app``.

        Args:
            lit_api: The API. Default: the first one.
        """
        from litplex._apphost import _app

        return _app.guard_of(self, lit_api or self.apis[0]) or _admit

    def _prepare_model(self, api: Any) -> None:
        super()._prepare_model(api)
        is_async = getattr(api, "enable_async", False) and getattr(api, "max_batch_size", 1) == 1
        if is_async and api.max_concurrency is None:
            api.max_concurrency = api._chosen_concurrency = _ASYNC_CONCURRENCY

    @property
    def healthcheck_path(self) -> str:
        """The path that reports whether the server can serve."""
        return self._path_of("healthcheck_path")

    @property
    def info_path(self) -> str:
        """The path that describes the server."""
        return self._path_of("info_path")

    @property
    def shutdown_path(self) -> str:
        """The path that stops the server; empty if no path does."""
        return self._path_of("shutdown_path")

    def _path_of(self, option: str) -> str:
        path: str = _options.route_paths(self.server_options)[option]
        return path

    @property
    def devices(self) -> list[Any]:
        """The devices in LitServe's form: ``["cpu"]``, or ``[["cuda:0"], …]``."""
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
        """Returns the names of the devices with these indices, such as ``cuda:0``."""
        numbers = device if isinstance(device, (list, tuple)) else [device]
        return [f"{accelerator}:{number}" for number in numbers]

    @staticmethod
    def generate_client_file(port: int | str = 8000) -> None:
        """Writes ``client.py`` to the working directory, unless it exists, as ``run`` does."""
        _client.write_client(os.getcwd(), f"http://127.0.0.1:{port}/predict")


def _admit() -> None:
    """Admits every client."""
