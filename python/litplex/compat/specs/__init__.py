"""The module ``litserve.specs``. The classes of requests and responses need pydantic 2."""

from litplex import OpenAIEmbeddingSpec, OpenAISpec
from litplex.compat.specs.openai import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from litplex.compat.specs.openai_embedding import EmbeddingRequest, EmbeddingResponse

__all__ = [
    "ChatCompletionChunk",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "OpenAIEmbeddingSpec",
    "OpenAISpec",
]
