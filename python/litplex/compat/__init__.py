"""The module ``litserve``: LitServe's public names, served by litplex.

``docs/litserve.md`` lists the differences, and what to do instead of each unsupported feature.
"""

from __future__ import annotations

from typing import Any

from litplex import (
    HTTPException,
    OpenAIEmbeddingSpec,
    OpenAISpec,
    Request,
    Response,
)
from litplex.compat.__about__ import __version__ as __version__
from litplex.compat.api import LitAPI
from litplex.compat.callbacks import Callback
from litplex.compat.loggers import Logger
from litplex.compat.utils import configure_logging, set_trace, set_trace_if_debug

__all__ = [
    "Callback",
    "HTTPException",
    "LitAPI",
    "LitServer",
    "Logger",
    "OpenAIEmbeddingSpec",
    "OpenAISpec",
    "Request",
    "Response",
    "configure_logging",
    "set_trace",
    "set_trace_if_debug",
    "test_examples",
]

configure_logging()


# Submodules that are attributes of LitServe. They are loaded on access.
_MODULES = (
    "__about__",
    "api",
    "callbacks",
    "connector",
    "loggers",
    "loops",
    "mcp",
    "middlewares",
    "server",
    "specs",
    "test_examples",
    "utils",
)


def __getattr__(name: str) -> Any:
    # Workers import this module too, and do not need the server.
    if name == "LitServer":
        from litplex.compat.server import LitServer

        return LitServer
    if name in _MODULES:
        import importlib

        return importlib.import_module(f"litplex.compat.{name}")
    raise AttributeError(f"module 'litserve' has no attribute {name!r}")
