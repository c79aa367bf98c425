"""Dialects that a model can have instead of plain requests: two of OpenAI's.

The server implements them towards clients. This module has the part that hooks see. Workers import
it, so it needs the standard library alone.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

from litplex._http import HTTPException


class LitSpec:
    """The dialect of a model, given as ``LitAPI(spec=…)``: :class:`OpenAISpec`,
    :class:`OpenAIEmbeddingSpec`, or a subclass of one of them.

    Attributes:
        api_path: The path of the endpoint, unless the API or the server sets another.
        stream: Whether ``predict`` is a generator.
        protocol: The server's id of the dialect; None for one that the server does not have.
    """

    api_path: str = "/predict"
    stream: bool = False
    protocol: str | None = None

    def populate_context(self, context: Any, request: Any) -> None:
        """Fills the context of a request before any hook sees it."""

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        """Replaces ``decode_request`` of an API that has none."""
        return request

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Replaces ``encode_response`` of an API that has none."""
        return output


class OpenAISpec(LitSpec):
    """Chat completions of OpenAI's API, at ``/v1/chat/completions``.

    ``decode_request`` gets a ``litserve.specs.openai.ChatCompletionRequest``, or an object of the
    same attributes if pydantic 2 is not installed. A ``context`` holds its fields except
    ``messages``. ``predict`` is a generator; its outputs are joined unless the client wants a
    stream. Each output is

    - a ``str``, a piece of the response, or None, for no piece;
    - a ``dict`` with ``content`` or ``tool_calls``, and optionally ``role``, ``name``, the usage so
      far (``prompt_tokens``, ``completion_tokens``, ``total_tokens``) or a ``finish_reason``; or a
      ``ChatMessage`` or ``ChatMessageWithUsage``;
    - a list whose last element is such a ``dict``; the other elements are ignored.

    ``encode_response`` may be a generator over these outputs that yields messages or ``dict``.

    Args:
        decode_media: Whether hooks get images and recordings as bytes, which the server decodes.
            Then ``image_url`` of a part has the bytes of a ``data:`` URL as ``data`` (None for
            another URL), and as ``url`` the part of it in front of the base64, such as
            ``data:image/png;base64,``; ``data`` of ``input_audio`` is bytes. A text that is not
            base64 is answered with 422. Default: False; hooks get the texts.
    """

    api_path = "/v1/chat/completions"
    stream = True
    protocol = "openai_chat"
    decode_media = False

    def __init__(self, *, decode_media: bool = False) -> None:
        self.decode_media = decode_media

    def populate_context(self, context: Any, request: Any) -> None:
        """Fills the context with the fields of the request except its messages."""
        context.update(request.model_dump(exclude={"messages"}))

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Returns a generator of a message for each output of ``predict``, ``async`` if that is.

        Raises:
            HTTPException: 500, at an output that is not a message.
        """
        if hasattr(output, "__aiter__"):
            return _messages_of_async(output)
        return map(message_of, output)


class OpenAIEmbeddingSpec(LitSpec):
    """Embeddings of OpenAI's API, at ``/v1/embeddings``.

    ``decode_request`` gets a ``litserve.specs.openai_embedding.EmbeddingRequest``, or an object of
    the same attributes, and ``predict`` its ``input``: a text, a list of texts, the tokens of a
    text, or a list of those. ``predict`` returns one vector for each text, as a list, array or
    tensor of two dimensions. ``encode_response`` returns a ``dict`` of ``embeddings`` and,
    optionally, ``prompt_tokens`` and ``total_tokens``. Default: the values that hooks have set in
    the context, or 0.
    """

    api_path = "/v1/embeddings"
    protocol = "openai_embeddings"

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        """Returns the input of the request."""
        return request.input

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Returns the vectors, and the usage in the context. Default of the usage: 0."""
        get = (context_kwargs or {}).get
        usage = {name: get(name, 0) for name in ("prompt_tokens", "total_tokens")}
        return {"embeddings": output, **usage}


async def _messages_of_async(outputs: AsyncIterator[Any]) -> AsyncIterator[dict[str, Any]]:
    async for output in outputs:
        yield message_of(output)


def message_of(output: Any) -> dict[str, Any]:
    """Returns the message in an output of a chat's ``predict``.

    Raises:
        HTTPException: 500, if the output is not a message.
    """
    if output is None or isinstance(output, str):
        return {"role": "assistant", "content": output}
    message = output
    if isinstance(output, list) and output and "role" in _fields_of(output[-1]):
        message = output[-1]
    fields = _fields_of(message)
    if "content" in fields or "tool_calls" in fields:
        return {"role": "assistant", **fields}
    text = (
        f"Malformed output from LitAPI.predict: it must be a text, or a dict such as "
        f'{{"role": "assistant", "content": "…"}}, and not {output!r}'
    )
    print(text, file=sys.stderr, flush=True)
    raise HTTPException(500, text)


def _fields_of(message: Any) -> dict[str, Any]:
    """Returns the fields of a message; none for any other value."""
    if hasattr(message, "model_dump"):
        fields: dict[str, Any] = message.model_dump(mode="json")
        return fields
    return message if isinstance(message, dict) else {}


# Methods of LitServe's specs that read its queues or answer its requests.
_NOT_CALLED = (
    "chat_completion",
    "embeddings_endpoint",
    "get_from_queues",
    "non_streaming_completion",
    "pre_setup",
    "setup",
    "streaming_completion",
)


def spec_error(spec: Any) -> str | None:
    """Returns the error in the ``spec`` of a model; None if there is none."""
    name = getattr(spec, "__name__", type(spec).__name__)
    if isinstance(spec, type) and issubclass(spec, LitSpec):
        return f"`spec` must be an instance, not a class; write `{name}()`"
    if not isinstance(spec, LitSpec):
        return f"`spec` must be OpenAISpec() or OpenAIEmbeddingSpec(), not {spec!r}"
    if spec.protocol is None:
        return (
            f"`spec`: the server does not have the protocol of {name}; use OpenAISpec or "
            "OpenAIEmbeddingSpec, or a subclass of one of them"
        )
    for method in _NOT_CALLED:
        if hasattr(spec, method):
            return f"`spec`: {name}.{method} would not be called; the server does what it is for"
    return None
