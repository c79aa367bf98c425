"""Models for ``OpenAIEmbeddingSpec``, with random embeddings of 768 dimensions; some of them do
what the spec refuses."""

from __future__ import annotations

import random
from typing import Any

from litplex.compat import LitAPI

_DIMENSIONS = 768


def _embedding() -> list[float]:
    return [random.random() for _ in range(_DIMENSIONS)]


def _embeddings(x: Any) -> list[list[float]]:
    return [_embedding() for _ in (x if isinstance(x, list) else [x])]


class TestEmbedAPI(LitAPI):
    """Embeds a text or a list of texts."""

    __test__ = False  # For pytest, which would collect it by its name.

    def setup(self, device: str) -> None:
        self.model = None

    def predict(self, x: Any) -> Any:
        return _embeddings(x)

    def encode_response(self, output: Any) -> Any:
        return {"embeddings": output}


class TestEmbedBatchedAPI(TestEmbedAPI):
    """Embeds a batch."""

    def predict(self, batch: Any) -> Any:
        return [_embeddings(x) for x in batch]


class TestEmbedAPIWithUsage(TestEmbedAPI):
    """Counts tokens, too."""

    def encode_response(self, output: Any) -> Any:
        return {"embeddings": output, "prompt_tokens": 10, "total_tokens": 10}


class TestEmbedAPIWithYieldPredict(TestEmbedAPI):
    """Yields where it must return."""

    def predict(self, x: Any) -> Any:
        yield from _embedding()


class TestEmbedAPIWithYieldEncodeResponse(TestEmbedAPI):
    """Yields its response where it must return it."""

    def encode_response(self, output: Any) -> Any:
        yield {"embeddings": output}


class TestEmbedAPIWithNonDictOutput(TestEmbedAPI):
    """Returns a list where it must return a dict."""

    def encode_response(self, output: Any) -> Any:
        return output


class TestEmbedAPIWithMissingEmbeddings(TestEmbedAPI):
    """Returns a dict without embeddings."""

    def encode_response(self, output: Any) -> Any:
        return {"output": output}
