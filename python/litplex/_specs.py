"""Protocols that a model can speak instead of plain requests: two of OpenAI's.

The server speaks them with clients. What is here is what hooks see of them, and it is imported by
workers, which need nothing but the standard library.
"""

from __future__ import annotations

import sys
from typing import Any

from litplex._http import HTTPException


class LitSpec:
    """What a model speaks, given as ``LitAPI(spec=…)``: :class:`OpenAISpec` or
    :class:`OpenAIEmbeddingSpec`, or a class made of one of them.

    Attributes:
        api_path: Where the endpoint is served, unless the API or the server has a path of its own.
        stream: Whether ``predict`` is a generator.
        protocol: What the server calls it; None is a protocol that it does not speak.
    """

    api_path: str = "/predict"
    stream: bool = False
    protocol: str | None = None

    def populate_context(self, context: Any, request: Any) -> None:
        """Fills the context of a request before any hook sees it."""

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        """Does what ``decode_request`` does where the API has none."""
        return request

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Does what ``encode_response`` does where the API has none."""
        return output


class OpenAISpec(LitSpec):
    """Chat completions, as OpenAI's clients ask for them, at ``/v1/chat/completions``.

    ``decode_request`` gets a ``litserve.specs.openai.ChatCompletionRequest``, or an object of the
    same attributes where pydantic 2 is not installed. A ``context`` holds its fields but
    ``messages``. ``predict`` is a generator whose outputs are joined where the client wants no
    stream; each is

    - a ``str``: a piece of the answer; or None, for none;
    - a ``dict`` of ``content`` or ``tool_calls``, perhaps with ``role``, ``name``, the usage so
      far (``prompt_tokens``, ``completion_tokens``, ``total_tokens``) or a ``finish_reason``; or a
      ``ChatMessage`` or ``ChatMessageWithUsage``;
    - a list that ends with such a ``dict``, which counts.

    ``encode_response`` may be a generator over these that yields messages or ``dict``.
    """

    api_path = "/v1/chat/completions"
    stream = True
    protocol = "openai_chat"

    def populate_context(self, context: Any, request: Any) -> None:
        """Fills the context with the fields of the request but its messages."""
        context.update(request.model_dump(exclude={"messages"}))

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Returns a generator of messages over what ``predict`` yields, ``async`` where that is.

        Raises:
            HTTPException: 500, at an output that is no message.
        """
        if hasattr(output, "__aiter__"):
            return _messages_of_async(output)
        return map(message_of, output)


class OpenAIEmbeddingSpec(LitSpec):
    """Embeddings, as OpenAI's clients ask for them, at ``/v1/embeddings``.

    ``decode_request`` gets a ``litserve.specs.openai_embedding.EmbeddingRequest``, or an object of
    the same attributes, and ``predict`` its ``input``: a text, a list of texts, the tokens of a
    text, or a list of those. It returns a vector for each, as a list, array or tensor.
    ``encode_response`` returns a ``dict`` of ``embeddings`` and, if it likes, ``prompt_tokens``
    and ``total_tokens``; by default they are taken from the context, where a hook that names it
    has set them.
    """

    api_path = "/v1/embeddings"
    protocol = "openai_embeddings"

    def decode_request(self, request: Any, context_kwargs: Any = None) -> Any:
        """Returns the input of the request."""
        return request.input

    def encode_response(self, output: Any, context_kwargs: Any = None) -> Any:
        """Returns the vectors, and the usage that the context holds, which is 0 by default."""
        get = (context_kwargs or {}).get
        usage = {name: get(name, 0) for name in ("prompt_tokens", "total_tokens")}
        return {"embeddings": output, **usage}


async def _messages_of_async(outputs):
    async for output in outputs:
        yield message_of(output)


def message_of(output: Any) -> dict[str, Any]:
    """Returns the message that an output of a chat's ``predict`` is.

    Raises:
        HTTPException: 500, where it is none.
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


def _fields_of(message):
    """Returns what a message holds, which is nothing where it is none."""
    if hasattr(message, "model_dump"):
        return message.model_dump(mode="json")
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
    """Returns what is wrong with the ``spec`` of a model, if anything."""
    name = getattr(spec, "__name__", type(spec).__name__)
    if isinstance(spec, type) and issubclass(spec, LitSpec):
        return f"`spec` must be an instance, not a class; write `{name}()`"
    if not isinstance(spec, LitSpec):
        return f"`spec` must be OpenAISpec() or OpenAIEmbeddingSpec(), not {spec!r}"
    if spec.protocol is None:
        return (
            f"`spec`: {name} is a protocol of its own, which the server does not speak; it speaks "
            "those of OpenAISpec and OpenAIEmbeddingSpec"
        )
    for method in _NOT_CALLED:
        if hasattr(spec, method):
            return f"`spec`: {name}.{method} would not be called; the server does what it is for"
    return None
