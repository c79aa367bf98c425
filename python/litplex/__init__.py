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

from litplex._api import FINISHED, ContinuousAPI, Last, LitAPI
from litplex._http import Context, Form, HTTPException, Request, Response, UploadFile
from litplex._mcp import MCP
from litplex._specs import OpenAIEmbeddingSpec, OpenAISpec

__version__ = "0.1.0"

__all__ = [
    "FINISHED",
    "MCP",
    "Context",
    "ContinuousAPI",
    "Form",
    "HTTPException",
    "Last",
    "LitAPI",
    "LitServer",
    "OpenAIEmbeddingSpec",
    "OpenAISpec",
    "Request",
    "Response",
    "UploadFile",
    "onnxruntime_options",
    "run_servers",
    "start",
]


# What programs written for LitServe use besides, loaded where it is asked for.
_OF_LITSERVE = ("Callback", "Logger", "set_trace", "set_trace_if_debug", "test_examples")


def __getattr__(name):
    # Workers import this package too, and never serve: they need not load what does.
    if name in ("LitServer", "run_servers"):
        from litplex import _server

        return getattr(_server, name)
    if name in ("RunningServer", "start"):
        from litplex import _start

        return getattr(_start, name)
    if name == "onnxruntime_options":
        from litplex._onnxruntime import onnxruntime_options

        return onnxruntime_options
    if name in _OF_LITSERVE:
        import importlib

        compat = importlib.import_module("litplex.compat")
        return getattr(compat, name)
    raise AttributeError(f"module 'litplex' has no attribute {name!r}")
