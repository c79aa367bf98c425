"""What ``import litserve`` finds: LitServe's public names, served by litmux.

``docs/litserve.md`` lists what differs, and what is not supported with what to do instead.
"""

from litmux import (
    HTTPException,
    LitAPI,
    OpenAIEmbeddingSpec,
    OpenAISpec,
    Request,
    Response,
)
from litmux.compat._missing import missing
from litmux.compat.callbacks import Callback
from litmux.compat.utils import configure_logging, set_trace, set_trace_if_debug

__version__ = "0.2.19"

__all__ = [
    "Callback",
    "HTTPException",
    "LitAPI",
    "LitServer",
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

_instead = missing(
    __name__,
    {
        "Logger": "print, or use logging, in the hooks: every line names its endpoint",
    },
)


def __getattr__(name):
    # Workers import this too, and need not load what serves.
    if name == "LitServer":
        from litmux.compat.server import LitServer

        return LitServer
    if name == "test_examples":
        import importlib

        return importlib.import_module("litmux.compat.test_examples")
    return _instead(name)
