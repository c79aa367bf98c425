"""What ``import litserve.specs.openai_embedding`` finds."""

from litplex._model.embeddings import (
    Embedding,
    EmbeddingRequest,
    EmbeddingResponse,
    OpenAIEmbeddingSpec,
    UsageInfo,
)

__all__ = [
    "Embedding",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "OpenAIEmbeddingSpec",
    "UsageInfo",
]
