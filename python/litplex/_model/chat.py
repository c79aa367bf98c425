"""Requests and responses of chats as pydantic models.

Their fields are those of OpenAI's API, and of LitServe 0.2.19, whose programs import them. They
also accept requests of newer clients, which may omit the description of a tool or choose one tool:
the server has checked a request before hooks see it.
"""

import time
import uuid
from enum import Enum
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import BaseModel, ConfigDict, Field, model_validator

from litplex import OpenAISpec

__all__ = [
    "AudioContent",
    "ChatCompletionChunk",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatCompletionResponseChoice",
    "ChatCompletionStreamingChoice",
    "ChatMessage",
    "ChatMessageWithUsage",
    "ChoiceDelta",
    "ContentPart",
    "Function",
    "FunctionCall",
    "ImageContent",
    "ImageContentURL",
    "ImageDetail",
    "InputAudio",
    "JSONSchema",
    "OpenAISpec",
    "ResponseFormat",
    "ResponseFormatJSONObject",
    "ResponseFormatJSONSchema",
    "ResponseFormatText",
    "TextContent",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "UsageInfo",
    "shortuuid",
]


def shortuuid() -> str:
    """Returns six random hexadecimal digits."""
    return uuid.uuid4().hex[:6]


def _make_id() -> str:
    return f"chatcmpl-{shortuuid()}"


def _now() -> int:
    return int(time.time())


class UsageInfo(BaseModel):
    """The numbers of tokens; usages add up, and ``sum`` adds them."""

    prompt_tokens: int = 0
    total_tokens: int = 0
    completion_tokens: Optional[int] = 0

    def __add__(self, other: "UsageInfo") -> "UsageInfo":
        return UsageInfo(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            completion_tokens=(self.completion_tokens or 0) + (other.completion_tokens or 0),
        )

    def __radd__(self, other: Any) -> "UsageInfo":
        # `sum` begins with 0.
        return self if other == 0 else other + self


class _Open(BaseModel):
    """A part of a request, which the server has checked; further fields are kept."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        """Leaves out the fields that are null: they get their defaults."""
        if not isinstance(value, dict):
            return value
        fields = cls.model_fields
        return {name: v for name, v in value.items() if v is not None or name not in fields}


class TextContent(_Open):
    """A part of a message: a text."""

    type: str
    text: str


class ImageDetail(str, Enum):
    """The resolution at which a model sees an image."""

    auto = "auto"
    low = "low"
    high = "high"


class ImageContentURL(_Open):
    """An address, or a ``data:`` URL, of an image.

    Where the spec has ``decode_media``, ``data`` has the bytes of a ``data:`` URL in base64, or
    None, and ``url`` the part in front of them.
    """

    url: str
    detail: Optional[Union[ImageDetail, str]] = ImageDetail.auto


class ImageContent(_Open):
    """A part of a message: an image."""

    type: str
    image_url: Union[str, ImageContentURL]


class InputAudio(_Open):
    """A recording, as base64; as bytes where the spec has ``decode_media``."""

    data: Union[str, bytes]
    format: Literal["wav", "mp3"]


class AudioContent(_Open):
    """A part of a message: a recording."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class ContentPart(_Open):
    """Any other part of a message, such as a file: its fields are attributes, unchanged."""

    type: str


_PARTS = Union[TextContent, ImageContent, AudioContent, ContentPart]


class Function(_Open):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: str
    description: Optional[str] = None
    parameters: Optional[dict[str, object]] = None


class ToolChoice(str, Enum):
    """Whether the model may, or must, call a tool."""

    auto = "auto"
    none = "none"
    any = "any"
    required = "required"


class Tool(_Open):
    """A tool that the model may call."""

    type: str
    function: Optional[Function] = None


class FunctionCall(_Open):
    """A call of a function; ``arguments`` is JSON."""

    name: str
    arguments: str


class ToolCall(_Open):
    """A call of a tool."""

    index: int = 0
    id: Optional[str] = None
    type: str = "function"
    function: Optional[FunctionCall] = None


class ResponseFormatText(_Open):
    """The response is text."""

    type: Literal["text"]


class ResponseFormatJSONObject(_Open):
    """The response is a JSON object."""

    type: Literal["json_object"]


class JSONSchema(_Open):
    """A schema, under ``schema_``, and its name."""

    name: str
    description: Optional[str] = None
    schema_: Optional[dict[str, object]] = Field(None, alias="schema")
    strict: Any = False


class ResponseFormatJSONSchema(_Open):
    """The response is JSON that conforms to a schema."""

    json_schema: JSONSchema
    type: Literal["json_schema"]


ResponseFormat = Annotated[
    Union[ResponseFormatText, ResponseFormatJSONObject, ResponseFormatJSONSchema],
    "ResponseFormat",
]


class ChatMessage(_Open):
    """A message of a request or a response; only ``role`` is required."""

    role: str
    content: Optional[Union[str, list[Annotated[_PARTS, Field(union_mode="left_to_right")]]]] = None
    name: Optional[str] = None
    tool_calls: Optional[list[ToolCall]] = None
    tool_call_id: Optional[str] = None
    function_call: Optional[FunctionCall] = None


class ChatMessageWithUsage(ChatMessage):
    """A message of a response, and the numbers of tokens so far."""

    prompt_tokens: Optional[int] = 0
    total_tokens: Optional[int] = 0
    completion_tokens: Optional[int] = 0


class ChoiceDelta(ChatMessage):
    """The part of a message that one chunk of a stream adds."""

    content: Optional[str] = None
    role: Optional[Literal["system", "user", "assistant", "tool"]] = None  # type: ignore[assignment]


class ChatCompletionRequest(_Open):
    """The request of a client. Hooks get it with an ``n`` of 1: each choice is a job of its own.
    Further fields, such as ``seed`` or ``top_k``, are attributes, unchanged."""

    model: Optional[str] = ""
    messages: list[ChatMessage]
    temperature: Optional[float] = 0.7
    top_p: Optional[float] = 1.0
    n: Optional[int] = 1
    max_tokens: Optional[int] = None
    max_completion_tokens: Optional[int] = None
    stop: Optional[Union[str, list[str]]] = None
    stream: Optional[bool] = False
    presence_penalty: Optional[float] = 0.0
    frequency_penalty: Optional[float] = 0.0
    user: Optional[str] = None
    tools: Optional[list[Tool]] = None
    tool_choice: Optional[Union[ToolChoice, dict[str, Any]]] = ToolChoice.auto
    response_format: Optional[ResponseFormat] = None
    reasoning_effort: Optional[str] = None
    metadata: Optional[dict[str, Any]] = None


class ChatCompletionResponseChoice(BaseModel):
    """One choice of a response."""

    index: int
    message: ChatMessage
    finish_reason: Optional[Literal["stop", "length", "tool_calls", "content_filter"]]


class ChatCompletionResponse(BaseModel):
    """The response to a request without a stream."""

    id: str = Field(default_factory=_make_id)
    object: str = "chat.completion"
    created: int = Field(default_factory=_now)
    model: str
    choices: list[ChatCompletionResponseChoice]
    usage: UsageInfo


class ChatCompletionStreamingChoice(BaseModel):
    """The part of one choice that a chunk adds."""

    delta: Optional[ChoiceDelta]
    finish_reason: Optional[
        Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
    ] = None
    index: int
    logprobs: Optional[dict[str, Any]] = None


class ChatCompletionChunk(BaseModel):
    """One event of a stream."""

    id: str = Field(default_factory=_make_id)
    object: str = "chat.completion.chunk"
    created: int = Field(default_factory=_now)
    model: str
    system_fingerprint: Optional[str] = None
    choices: list[ChatCompletionStreamingChoice]
    usage: Optional[UsageInfo]
