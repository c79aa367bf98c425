"""What the arguments of LitServe mean here, so that a program keeps its calls.

Facts from LitServe 0.2.19. Some of its arguments are options of litplex under another name, some
choose between ways of which only one is left, and some are not supported and say so.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from litplex import _litserve_tls, _options

#: Whether the program imports ``litserve``: it then listens and prints as it is used to.
is_spoken = False

# A server that never gives a request up would keep it for ever: without a timeout it is a day.
_NO_TIMEOUT = 24 * 3600

_TIMEOUT = 30

_NOT_NEEDED = {
    "fast_queue": "no queue lies between the server and its workers",
    "restart_workers": "workers that end are always replaced",
    "track_requests": "requests are always counted",
    "num_api_servers": "one process speaks HTTP, with `http_threads`",
    "api_server_worker_type": "one process speaks HTTP, with `http_threads`",
    "pretty_logs": "the log is colored in a terminal",
}

# What ``/info`` shows as it was given, and the defaults.
_INFO = {
    "workers_per_device": 1,
    "timeout": _TIMEOUT,
    "max_payload_size": None,
    "track_requests": False,
}

# LitServe takes bodies of any size; this is the most that litplex can.
_MOST_BODY_BYTES = 1 << 29

_OF_THE_SERVER = (
    "healthcheck_path",
    "info_path",
    "shutdown_path",
    "enable_shutdown_api",
    "model_metadata",
    "disable_openapi_url",
)

_UNSUPPORTED = {
    "loop": "write what one step does as `admit`, `step` and `finish` of a ContinuousAPI",
}

# Settings of uvicorn that say nothing about what is served, or to whom.
_OF_UVICORN = (
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


class Given:
    """The arguments of one LitServer, sorted.

    Attributes:
        endpoint: The options of its endpoints.
        server: The options of the whole server.
        workers: ``workers_per_device`` by path, where that was given.
        callbacks: What its endpoints call back.
        loggers: What processes the entries that its models log.
        middlewares: Classes, or pairs of a class and its arguments, of Starlette's kind.
        mistakes: A sentence for each argument that is wrong.
        info: What ``/info`` shows of them in LitServe.
    """

    def __init__(self, options: Mapping[str, Any], paths: list[str]) -> None:
        self.endpoint = dict(options)
        self.server: dict[str, Any] = {}
        self.workers: dict[str, int] = {}
        self.middlewares: list[Any] = []
        self.mistakes: list[str] = []
        self.info = {name: self.endpoint.get(name, value) for name, value in _INFO.items()}
        self._refuse()
        for name in _NOT_NEEDED:
            self.endpoint.pop(name, None)
        self._take_of_the_server()
        self._take_workers(paths)
        self._take_limits()
        self.callbacks = self._take_instances(
            "callbacks",
            "Callback",
            "Invalid callback type: {!r} must be an instance of Callback",
        )
        self.loggers = self._take_instances(
            "loggers",
            "Logger",
            "loggers must be a list or an instance of litserve.Logger, not {!r}",
        )
        self._take_middlewares()

    def _refuse(self):
        for name, instead in _UNSUPPORTED.items():
            value = self.endpoint.pop(name, None)
            if value and value != "auto":
                self.mistakes.append(f"`{name}` is not supported; {instead}")

    def _take_of_the_server(self):
        given = {n: self.endpoint.pop(n) for n in _OF_THE_SERVER if n in self.endpoint}
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
                self.mistakes.append("model_metadata must be JSON serializable")
        for name in ("healthcheck_path", "info_path", "shutdown_path"):
            if not str(given.get(name, "/")).startswith("/"):
                self.mistakes.append(f"{name} must start with '/', as in '/{given.pop(name)}'")
        self.server = given

    def _take_workers(self, paths):
        workers = self.endpoint.get("workers_per_device")
        if isinstance(workers, (list, tuple)):
            if len(workers) != len(paths):
                self.mistakes.append(
                    f"workers_per_device list length must match number of APIs ({len(paths)}), "
                    f"got {len(workers)}"
                )
            workers = dict(zip(paths, workers))
        if not isinstance(workers, Mapping):
            return
        del self.endpoint["workers_per_device"]
        unknown = [path for path in workers if path not in paths]
        if unknown:
            self.mistakes.append(
                f"workers_per_device contains unknown api_path values: {unknown}; there are {paths}"
            )
        for path, count in workers.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                self.mistakes.append(
                    f"workers_per_device values must be integers >= 1, not {count!r} of `{path}`"
                )
        self.workers = dict(workers)

    def _take_limits(self):
        options = self.endpoint
        if options.get("timeout") in (False, -1, 0) and "timeout" in options:
            options["timeout"] = _NO_TIMEOUT
        if is_spoken:
            # There it is the time until a worker begins; what has begun may take its time.
            options["queue_timeout"] = options.pop("timeout", _TIMEOUT)
            options["timeout"] = _NO_TIMEOUT
        accelerator = options.get("accelerator", "")
        if accelerator is None:
            del options["accelerator"]
        elif accelerator and isinstance(accelerator, str):
            options["accelerator"] = accelerator.lower()
        if options.get("accelerator") in ("cuda", "gpu", "mps") and "devices" in options:
            devices = options["devices"]
            if _options.mistakes("endpoint", {"devices": devices}):
                del options["devices"]
                self.mistakes.append(
                    "devices must be an integer or a list of integers when using 'cuda' or 'mps', "
                    f"instead got {devices!r}"
                )
        size = options.pop("max_payload_size", None)
        if size is not None:
            options["max_body_bytes"] = self._bytes_of(size)
        elif is_spoken:
            options.setdefault("max_body_bytes", _MOST_BODY_BYTES)

    def _bytes_of(self, size):
        if isinstance(size, float) and 0 <= size < float("inf"):
            return int(size)
        match = re.fullmatch(r"\s*(\d+)\s*([KMG]?B)?\s*", str(size).upper())
        if match is None:
            self.mistakes.append(
                f"max_payload_size must be a number of bytes (int or float), or a text such as "
                f'"100MB", not {size!r}'
            )
            return 1
        return int(match[1]) * _UNITS[match[2] or ""]

    def _take_instances(self, name, kind, mistake):
        """Takes one object, or several, of a class of LitServe that is named ``kind``."""
        given = _listed(self.endpoint.pop(name, None) or [])
        if given:
            from litplex import compat

            wanted = getattr(compat, kind)
            wrong = [each for each in given if not isinstance(each, wanted)]
            self.mistakes += [mistake.format(each) for each in wrong]
        return given

    def _take_middlewares(self):
        middlewares = self.endpoint.pop("middlewares", None)
        if isinstance(middlewares, list) and all(map(_is_middleware, middlewares)):
            self.middlewares = list(middlewares)
        elif middlewares is not None:
            self.mistakes.append(
                f"middlewares must be a list of tuples of a class and a dict of its arguments, or "
                f"of classes, not {middlewares!r}"
            )


# Routes that LitServe does not have, and what becomes of them where a program has an endpoint.
_YIELDING = {
    "metrics_path": ("/metrics", False),
    "livez_path": ("/livez", "/-/livez"),
    "readyz_path": ("/readyz", "/-/readyz"),
}


def yielded(paths: list[str]) -> dict[str, Any]:
    """Returns the options that leave these paths to the program."""
    return {name: value for name, (path, value) in _YIELDING.items() if path in paths}


# By the variable of the environment: the name in ``litserve.server``, which a program may set.
_KEYS = {"LIT_SERVER_API_KEY": "LIT_SERVER_API_KEY", "LIT_SHUTDOWN_API_KEY": "SHUTDOWN_API_KEY"}


def key(variable: str) -> str:
    """Returns a key that the program has set in ``litserve.server``, or that of the environment; an
    empty text where there is none."""
    module = sys.modules.get("litplex.compat.server")
    # As the server takes it: no header can carry the line break that files and shells leave there.
    return (getattr(module, _KEYS[variable], None) or os.environ.get(variable, "")).strip()


def environment() -> dict[str, str]:
    """Returns the environment of the server, with its keys."""
    keys = {variable: key(variable) for variable in _KEYS}
    return {**os.environ, **{variable: value for variable, value in keys.items() if value}}


def _is_middleware(entry):
    if not isinstance(entry, tuple):
        return callable(entry)
    return len(entry) == 2 and callable(entry[0]) and isinstance(entry[1], dict)


def _listed(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def run_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns what remains of the arguments of ``run`` for litplex, and what is wrong with them."""
    left, found = dict(options), []
    if left.pop("num_api_servers", None) not in (None, *range(1, 1025)):
        found.append("num_api_servers must be greater than 0")
    if left.pop("api_server_worker_type", None) not in (None, "process", "thread"):
        found.append("`api_server_worker_type`: Must be 'process' or 'thread'")
    left.pop("pretty_logs", None)
    left.pop("log_level", None)
    port = left.get("port")
    if isinstance(port, str) and port.isdigit():
        left["port"] = int(port)
    found += _litserve_tls.take(left)
    # A text is litplex's own option of that name; uvicorn's is a switch.
    own = ["access_log"] if isinstance(left.get("access_log"), str) else []
    for name in [name for name in left if name in _OF_UVICORN and name not in own]:
        del left[name]
        warnings.warn(f"`{name}` is of uvicorn, which is not used: ignored", stacklevel=4)
    return left, found
