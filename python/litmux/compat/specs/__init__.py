"""What ``import litserve.specs`` finds. The classes of requests and answers need pydantic 2."""

from litmux import OpenAIEmbeddingSpec, OpenAISpec
from litmux.compat.specs.openai import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from litmux.compat.specs.openai_embedding import EmbeddingRequest, EmbeddingResponse

__all__ = [
    "ChatCompletionChunk",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "OpenAIEmbeddingSpec",
    "OpenAISpec",
]
