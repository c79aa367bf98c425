"""Requests and responses as pydantic models.

Their fields are those of OpenAI's API, and of LitServe 0.2.19, whose programs import them.
"""

from typing import Any, Literal, Optional, Union

from pydantic import BaseModel, ConfigDict

from litplex import OpenAIEmbeddingSpec

__all__ = [
    "Embedding",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "OpenAIEmbeddingSpec",
    "UsageInfo",
]


class EmbeddingRequest(BaseModel):
    """The request of a client: ``input`` is a text, a list of texts, the tokens of a text, or a
    list of those."""

    model_config = ConfigDict(extra="allow")

    input: Union[str, list[str], list[int], list[list[int]]]
    model: str = ""
    dimensions: Optional[int] = None
    encoding_format: Literal["float", "base64"] = "float"
    user: Optional[str] = None

    def get_num_items(self) -> int:
        """Returns the number of vectors that the client asks for."""
        is_one = isinstance(self.input, str) or isinstance(self.input[0], int)
        return 1 if is_one else len(self.input)

    def ensure_list(self) -> list[Any]:
        """Returns the input as a list; a text becomes a list of one."""
        return [self.input] if isinstance(self.input, str) else self.input


class Embedding(BaseModel):
    """One vector of a response: numbers, or base64 of little-endian 32-bit floats."""

    index: int
    embedding: Union[list[float], str]
    object: Literal["embedding"] = "embedding"


class UsageInfo(BaseModel):
    """The numbers of tokens."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingResponse(BaseModel):
    """The response."""

    data: list[Embedding]
    model: str
    object: Literal["list"] = "list"
    usage: UsageInfo
