"""Reads the arguments of LitServe, so that a program keeps its calls.

They are those of LitServe 0.2.19. Some are options of litplex under another name, some choose
between modes of which litplex has only one, and some are not supported and refused.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from litplex import _options
from litplex._arguments import ServerArguments
from litplex.compat import _tls

# The timeout, in seconds, that replaces no timeout: a request must not stay forever.
_NO_TIMEOUT = 24 * 3600

_TIMEOUT = 30

_NOT_NEEDED = {
    "fast_queue": "no queue lies between the server and its workers",
    "restart_workers": "workers that end are always replaced",
    "track_requests": "requests are always counted",
    "num_api_servers": "one process serves HTTP, with `http_threads`",
    "api_server_worker_type": "one process serves HTTP, with `http_threads`",
    "pretty_logs": "the log is colored in a terminal",
}

# The keywords that ``/info`` shows, and their defaults.
_INFO = {
    "workers_per_device": 1,
    "timeout": _TIMEOUT,
    "max_payload_size": None,
    "track_requests": False,
}

# LitServe takes bodies of any size; litplex takes at most this many bytes.
_MOST_BODY_BYTES = 1 << 29

_SERVER_OPTIONS = (
    "healthcheck_path",
    "info_path",
    "shutdown_path",
    "enable_shutdown_api",
    "model_metadata",
    "disable_openapi_url",
)

_UNSUPPORTED = {
    "loop": "write `admit`, `step` and `finish` of a ContinuousAPI",
}

# Settings of uvicorn that change neither the responses nor the callers.
_UVICORN_SETTINGS = (
    "access_log",
    "backlog",
    "date_header",
    "h11_max_incomplete_event_size",
    "http",
    "interface",
    "lifespan",
    "limit_concurrency",
    "limit_max_requests",
    "log_config",
    "loop",
    "proxy_headers",
    "reload",
    "server_header",
    "timeout_graceful_shutdown",
    "timeout_keep_alive",
    "use_colors",
    "workers",
    "ws",
)

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def read_server_arguments(options: Mapping[str, Any], paths: list[str]) -> ServerArguments:
    """Sorts the keywords of a ``LitServer`` of a program that imports ``litserve``.

    Args:
        options: The keywords.
        paths: The paths of its endpoints.
    """
    arguments = read_foreign_server_arguments(options, paths)
    endpoint = arguments.endpoint
    # LitServe's `timeout` ends when a worker begins; the time after that has no limit.
    endpoint["queue_timeout"] = endpoint.pop("timeout", _TIMEOUT)
    endpoint["timeout"] = _NO_TIMEOUT
    endpoint.setdefault("max_body_bytes", _MOST_BODY_BYTES)
    arguments.info = server_info(options)
    return arguments


def read_foreign_server_arguments(options: Mapping[str, Any], paths: list[str]) -> ServerArguments:
    """Sorts the keywords of a ``LitServer`` with some of LitServe's, in a program that imports
    ``litplex``: keywords that both have are those of litplex."""
    return _ServerReader(options, paths).arguments


def server_info(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keywords of a ``LitServer`` that LitServe's ``/info`` shows."""
    return {name: options.get(name, default) for name, default in _INFO.items()}


class _ServerReader:
    """Sorts keywords into ``arguments``, one kind after another."""

    def __init__(self, options: Mapping[str, Any], paths: list[str]) -> None:
        self.arguments = arguments = ServerArguments(dict(options))
        self.endpoint, self.errors = arguments.endpoint, arguments.errors
        self._refuse()
        for name in _NOT_NEEDED:
            self.endpoint.pop(name, None)
        self._take_server_options()
        self._take_workers(paths)
        self._take_limits()
        arguments.callbacks = self._take_instances(
            "callbacks",
            "Callback",
            "Invalid callback type: {!r} must be an instance of Callback",
        )
        arguments.loggers = self._take_instances(
            "loggers",
            "Logger",
            "loggers must be a list or an instance of litserve.Logger, not {!r}",
        )
        self._take_middlewares()

    def _refuse(self) -> None:
        for name, instead in _UNSUPPORTED.items():
            value = self.endpoint.pop(name, None)
            if value and value != "auto":
                self.errors.append(f"`{name}` is not supported; {instead}")

    def _take_server_options(self) -> None:
        given = {n: self.endpoint.pop(n) for n in _SERVER_OPTIONS if n in self.endpoint}
        is_enabled = given.pop("enable_shutdown_api", False)
        path = given.pop("shutdown_path", "/shutdown")
        if is_enabled:
            given["shutdown_path"] = path
        if given.pop("disable_openapi_url", False):
            given["openapi"] = False
        metadata = given.pop("model_metadata", None)
        if metadata is not None:
            try:
                given["model_metadata"] = json.loads(json.dumps(metadata, allow_nan=False))
            except (TypeError, ValueError):
                self.errors.append("model_metadata must be JSON serializable")
        for name in ("healthcheck_path", "info_path", "shutdown_path"):
            if not str(given.get(name, "/")).startswith("/"):
                self.errors.append(f"{name} must start with '/', as in '/{given.pop(name)}'")
        self.arguments.server = given

    def _take_workers(self, paths: list[str]) -> None:
        workers = self.endpoint.get("workers_per_device")
        if isinstance(workers, (list, tuple)):
            if len(workers) != len(paths):
                self.errors.append(
                    f"workers_per_device list length must match number of APIs ({len(paths)}), "
                    f"got {len(workers)}"
                )
            workers = dict(zip(paths, workers))
        if not isinstance(workers, Mapping):
            return
        del self.endpoint["workers_per_device"]
        unknown = [path for path in workers if path not in paths]
        if unknown:
            self.errors.append(
                f"workers_per_device contains unknown api_path values: {unknown}; there are {paths}"
            )
        for path, count in workers.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                self.errors.append(
                    f"workers_per_device values must be integers >= 1, not {count!r} of `{path}`"
                )
        self.arguments.workers = dict(workers)

    def _take_limits(self) -> None:
        options = self.endpoint
        if options.get("timeout") in (False, -1, 0) and "timeout" in options:
            options["timeout"] = _NO_TIMEOUT
        accelerator = options.get("accelerator", "")
        if accelerator is None:
            del options["accelerator"]
        elif accelerator and isinstance(accelerator, str):
            options["accelerator"] = accelerator.lower()
        if options.get("accelerator") in ("cuda", "gpu", "mps") and "devices" in options:
            devices = options["devices"]
            if _options.errors("endpoint", {"devices": devices}):
                del options["devices"]
                self.errors.append(
                    "devices must be an integer or a list of integers when using 'cuda' or 'mps', "
                    f"instead got {devices!r}"
                )
        size = options.pop("max_payload_size", None)
        if size is not None:
            options["max_body_bytes"] = self._byte_count(size)

    def _byte_count(self, size: Any) -> int:
        if isinstance(size, float) and 0 <= size < float("inf"):
            return int(size)
        match = re.fullmatch(r"\s*(\d+)\s*([KMG]?B)?\s*", str(size).upper())
        if match is None:
            self.errors.append(
                f"max_payload_size must be a number of bytes (int or float), or a text such as "
                f'"100MB", not {size!r}'
            )
            return 1
        return int(match[1]) * _UNITS[match[2] or ""]

    def _take_instances(self, name: str, kind: str, error: str) -> list[Any]:
        """Takes one or several objects of the class of LitServe with the name ``kind``."""
        given = _listed(self.endpoint.pop(name, None) or [])
        if given:
            from litplex import compat

            wanted = getattr(compat, kind)
            wrong = [each for each in given if not isinstance(each, wanted)]
            self.errors += [error.format(each) for each in wrong]
        return given

    def _take_middlewares(self) -> None:
        middlewares = self.endpoint.pop("middlewares", None)
        if isinstance(middlewares, list) and all(map(_is_middleware, middlewares)):
            self.arguments.middlewares = list(middlewares)
        elif middlewares is not None:
            self.errors.append(
                f"middlewares must be a list of tuples of a class and a dict of its arguments, or "
                f"of classes, not {middlewares!r}"
            )


def _is_middleware(entry: object) -> bool:
    if not isinstance(entry, tuple):
        return callable(entry)
    return len(entry) == 2 and callable(entry[0]) and isinstance(entry[1], dict)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def read_run_arguments(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the server options among the keywords of ``run``, and a sentence for each invalid
    keyword."""
    left = dict(options)
    found: list[str] = []
    if left.pop("num_api_servers", None) not in (None, *range(1, 1025)):
        found.append("num_api_servers must be greater than 0")
    if left.pop("api_server_worker_type", None) not in (None, "process", "thread"):
        found.append("`api_server_worker_type`: Must be 'process' or 'thread'")
    left.pop("pretty_logs", None)
    left.pop("log_level", None)
    port = left.get("port")
    if isinstance(port, str) and port.isdigit():
        left["port"] = int(port)
    found += _tls.take(left)
    # A text is the value of litplex's option with that name; uvicorn's is a boolean.
    own = ["access_log"] if isinstance(left.get("access_log"), str) else []
    for name in [name for name in left if name in _UVICORN_SETTINGS and name not in own]:
        del left[name]
        warnings.warn(f"`{name}` is a setting of uvicorn, which is not used: ignored", stacklevel=4)
    return left, found
