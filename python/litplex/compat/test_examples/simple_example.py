"""Models that need no weights: ``{"input": 4.0}`` is answered by ``{"output": 16.0}``."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from litplex.compat import LitAPI


def _square(x: Any) -> Any:
    return x**2


class SimpleLitAPI(LitAPI):
    """Squares a number."""

    def setup(self, device: str) -> None:
        self.model = _square

    def decode_request(self, request: Any) -> Any:
        return request["input"]

    def predict(self, x: Any) -> Any:
        return self.model(x)

    def encode_response(self, output: Any) -> Any:
        return {"output": output}


class SimpleBatchedAPI(SimpleLitAPI):
    """Squares numbers, a batch at a time; needs numpy."""

    def decode_request(self, request: Any) -> Any:
        return importlib.import_module("numpy").asarray(request["input"])


class SimpleTorchAPI(LitAPI):
    """Computes ``2 * input + 1`` with a layer of torch, which it needs."""

    def setup(self, device: str) -> None:
        nn = importlib.import_module("torch.nn")
        model = nn.Linear(1, 1)
        nn.init.constant_(model.weight, 2.0)
        nn.init.constant_(model.bias, 1.0)
        self.model = model.to(device)

    def decode_request(self, request: Any) -> Any:
        return importlib.import_module("torch").tensor([request["input"]], device=self.device)

    def predict(self, x: Any) -> Any:
        return self.model(x[None, :])

    def encode_response(self, output: Any) -> Any:
        return {"output": float(output)}


class SimpleStreamAPI(LitAPI):
    """Streams its input three times, numbered."""

    def setup(self, device: str) -> None:
        self.model = "{}: {}".format

    def decode_request(self, request: Any) -> Any:
        return request["input"]

    def predict(self, x: Any) -> Iterator[str]:
        for number in range(3):
            yield self.model(number, x)

    def encode_response(self, output_stream: Iterable[Any]) -> Iterator[dict[str, Any]]:
        for output in output_stream:
            yield {"output": output}
