"""litplex: one server, many different models.

A first server::

    import litplex as ls

    class WordCountAPI(ls.LitAPI):
        def setup(self, device):
            self.separator = " "

        def predict(self, text):
            return {"words": len(text.split(self.separator))}

    if __name__ == "__main__":
        ls.run_servers(ls.LitServer(WordCountAPI(), path="/count"), port=8000)

It answers ``curl localhost:8000/count --json '"how many words"'``.
"""

from typing import TYPE_CHECKING

from litplex._api import FINISHED, ContinuousAPI, Last, LitAPI
from litplex._calls.errors import CallError
from litplex._http import Context, Form, HTTPException, Request, Response, UploadFile
from litplex._mcp import MCP
from litplex._specs import OpenAIEmbeddingSpec, OpenAISpec

if TYPE_CHECKING:
    from litplex._base64 import Base64
    from litplex._calls.call import Call, gather
    from litplex._calls.endpoint import Endpoint, endpoint
    from litplex._keywords import EndpointOptions, ServerOptions
    from litplex._onnxruntime import onnxruntime_options
    from litplex._pipeline import Pipeline, parallel, sequence, splitter, step, switch, value
    from litplex._pipeline import map as map
    from litplex._server import LitServer, run_servers
    from litplex._start import RunningServer, start
    from litplex.compat import Callback as Callback
    from litplex.compat import Logger as Logger
    from litplex.compat import set_trace as set_trace
    from litplex.compat import set_trace_if_debug as set_trace_if_debug
    from litplex.compat import test_examples as test_examples

__version__ = "0.1.0"

__all__ = [
    "FINISHED",
    "MCP",
    "Base64",
    "Call",
    "CallError",
    "Context",
    "ContinuousAPI",
    "Endpoint",
    "EndpointOptions",
    "Form",
    "HTTPException",
    "Last",
    "LitAPI",
    "LitServer",
    "OpenAIEmbeddingSpec",
    "OpenAISpec",
    "Pipeline",
    "Request",
    "Response",
    "RunningServer",
    "ServerOptions",
    "UploadFile",
    "endpoint",
    "gather",
    "onnxruntime_options",
    "parallel",
    "run_servers",
    "sequence",
    "splitter",
    "start",
    "step",
    "switch",
    "value",
]
# Without `map`: `from litplex import *` must not hide the function of Python.


# Names that are loaded on access: workers also import this package, and never serve.
_MODULES = {
    "Base64": "litplex._base64",
    "Call": "litplex._calls.call",
    "gather": "litplex._calls.call",
    "Endpoint": "litplex._calls.endpoint",
    "endpoint": "litplex._calls.endpoint",
    "Pipeline": "litplex._pipeline",
    "map": "litplex._pipeline",
    "parallel": "litplex._pipeline",
    "sequence": "litplex._pipeline",
    "splitter": "litplex._pipeline",
    "step": "litplex._pipeline",
    "switch": "litplex._pipeline",
    "value": "litplex._pipeline",
    "EndpointOptions": "litplex._keywords",
    "ServerOptions": "litplex._keywords",
    "LitServer": "litplex._server",
    "run_servers": "litplex._server",
    "RunningServer": "litplex._start",
    "start": "litplex._start",
    "onnxruntime_options": "litplex._onnxruntime",
    # Further names that programs written for LitServe use.
    "Callback": "litplex.compat",
    "Logger": "litplex.compat",
    "set_trace": "litplex.compat",
    "set_trace_if_debug": "litplex.compat",
    "test_examples": "litplex.compat",
}

# To a type checker, every name would exist.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module 'litplex' has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
