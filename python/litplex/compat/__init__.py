"""What ``import litserve`` finds: LitServe's public names, served by litplex.

``docs/litserve.md`` lists what differs, and what is not supported with what to do instead.
"""

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


# ``import litserve`` makes them attributes, and here they load where they are asked for.
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


def __getattr__(name):
    # Workers import this too, and need not load what serves.
    if name == "LitServer":
        from litplex.compat.server import LitServer

        return LitServer
    if name in _MODULES:
        import importlib

        return importlib.import_module(f"litplex.compat.{name}")
    raise AttributeError(f"module 'litserve' has no attribute {name!r}")
