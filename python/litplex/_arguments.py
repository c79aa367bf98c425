"""Sorts the keywords of ``LitServer`` and ``run_servers`` into the options that they set.

``compat/_arguments.py`` reads keywords and values that only LitServe has. It is loaded only for
those.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from litplex import _options

#: The variables in which a platform passes a certificate and its key to a server.
_TLS_VARIABLES = ("LIGHTNING_CERT_PEM", "LIGHTNING_KEY_FILE")


@dataclass
class ServerArguments:
    """The keywords of one ``LitServer``, sorted.

    Attributes:
        endpoint: The options of its endpoints.
        server: The options of the whole server.
        workers: ``workers_per_device`` by path, if it was given so.
        callbacks: Objects that receive the events of its endpoints and workers.
        loggers: Objects that process the entries that its models log.
        middlewares: Classes, or pairs of a class and its arguments, of Starlette's kind.
        errors: A sentence for each invalid keyword.
        info: The keywords that ``/info`` shows. None: it shows the state of the server.
    """

    endpoint: dict[str, Any]
    server: dict[str, Any] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    callbacks: list[Any] = field(default_factory=list)
    loggers: list[Any] = field(default_factory=list)
    middlewares: list[Any] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    info: dict[str, Any] | None = None


def read_server_arguments(options: Mapping[str, Any], paths: list[str]) -> ServerArguments:
    """Sorts the keywords of a ``LitServer`` of a program that imports ``litplex``.

    Args:
        options: The keywords.
        paths: The paths of its endpoints.
    """
    given = dict(options)
    if not _options.errors("endpoint", given):
        return ServerArguments(given)
    from litplex.compat import _arguments

    return _arguments.read_foreign_server_arguments(given, paths)


def read_run_arguments(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the server options among the keywords of ``run_servers``, and a sentence for each
    invalid keyword."""
    given = dict(options)
    has_variables = any(name in os.environ for name in _TLS_VARIABLES)
    if not (has_variables or _options.errors("server", given)):
        return given, []
    from litplex.compat import _arguments

    return _arguments.read_run_arguments(given)
