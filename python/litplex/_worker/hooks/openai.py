"""Calls the hooks of models with one of OpenAI's dialects.

The server checks requests and builds responses. This module converts requests to the form that
hooks expect, and outputs to the form that the server expects.
"""

from __future__ import annotations

import contextlib
import json
import math
import numbers
from typing import TYPE_CHECKING, Any

from litplex._api import LitAPI, is_method_of
from litplex._http import HTTPException
from litplex._specs import LitSpec, OpenAISpec, message_of
from litplex._worker.hooks import records
from litplex._worker.hooks.hooks import Hooks
from litplex._worker.hooks.stream_format import converted

if TYPE_CHECKING:
    from collections.abc import Callable

    from litplex._worker.wire.frames import Payload

_USAGE = ("prompt_tokens", "total_tokens")


class _SpecHooks(Hooks):
    def __init__(self, api: Any, retry_singly: bool = False) -> None:
        super().__init__(api, retry_singly)
        # litplex specs fill the context for hooks that name it; a derived class may need it too.
        methods = ("populate_context", "encode_response")
        self.context |= any(_is_own(api.spec, method) for method in methods)
        self._make_request = _request_maker(api.spec.protocol)
        self._decode: Callable[[dict[str, Any]], None] | None = None
        if getattr(api.spec, "decode_media", False):
            from litplex._worker.hooks import base64_fields, media

            self._decode, self.base64 = media.decode, media.FIELDS
            base64_fields.accept(self.base64)
        self._has_default_encode = is_method_of(api.encode_response, LitAPI.encode_response)
        # Puts the events of callbacks around a function, where there are any.
        self._around = getattr(api.encode_response, "around", None)
        if self._has_default_encode:
            # Through the API it would come without its context.
            encode = api.spec.encode_response
            self.encode = encode if self._around is None else self._around(encode)

    def model_info(self) -> dict[str, Any]:
        """Returns the ``Ready`` message."""
        return {**super().model_info(), "spec": self.api.spec.protocol}

    def _read(self, flags: int, payload: Payload) -> Any:
        value, context = super()._read(flags, payload)
        if not isinstance(value, dict):
            raise HTTPException(422, "the body must be a JSON object")
        if self._decode is not None:
            self._decode(value)
        request = self._make_request(value)
        if self.context:
            self.api.spec.populate_context(context, request)
        return request, context


def _is_own(spec: Any, method: str) -> bool:
    """Returns whether a class derived from litplex's specs defines the method."""
    module: str = getattr(type(spec), method).__module__
    return module != LitSpec.__module__


class ChatHooks(_SpecHooks):
    """The hooks of a chat: every output becomes the message that the server is sent."""

    def __init__(self, api: Any, retry_singly: bool = False) -> None:
        super().__init__(api, retry_singly)
        form, convert = self.format, item_of
        if form is not None:
            # The server gets JSON even so, as in LitServe.
            convert = lambda message: item_of(form(message))  # noqa: E731
        if not self.has_default_messages():
            self.encode = self._converted(self.encode, convert)
            return
        if self._around is None or self.is_continuous:
            # One at a time, so that streams without a caller are left out.
            self.encodes_stream = False
            self.encode = lambda output, _: convert(message_of(output))
            return
        enclosed = self._around(lambda outputs, _: outputs)
        self.encode = self._converted(enclosed, lambda output: convert(message_of(output)))

    def _converted(self, encode: Any, convert: Callable[[Any], Any]) -> Any:
        return converted(encode, convert, self.encodes_stream, self.max_batch_size > 1)

    def has_default_messages(self) -> bool:
        """Returns whether neither the API nor its spec says how outputs become messages."""
        spec_encode = self.api.spec.encode_response
        return self._has_default_encode and is_method_of(spec_encode, OpenAISpec.encode_response)


class EmbeddingHooks(_SpecHooks):
    """The hooks of embeddings, whose answers are checked before they are sent."""

    def __init__(self, api: Any, retry_singly: bool = False) -> None:
        super().__init__(api, retry_singly)
        encode = self.encode
        hook = "predict" if self._has_default_encode else "encode_response"
        self.encode = lambda output, context: _checked(encode(output, context), hook)
        decode, compute, _ = self.plain
        self.plain = (decode, compute, lambda output: self.encode(output, None))


KINDS = {"openai_chat": ChatHooks, "openai_embeddings": EmbeddingHooks}


def item_of(message: Any) -> Any:
    """Returns the fields of a message that the server gets: those that are not None.

    Raises:
        TypeError: the value is not a message.
    """
    if hasattr(message, "model_dump"):
        return message.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(message, (str, bytes)):
        # LitServe also reads texts that are JSON.
        with contextlib.suppress(ValueError):
            message = json.loads(message)
    if not isinstance(message, dict):
        raise TypeError(
            f"`encode_response` must yield a ChatMessage, or a dict such as "
            f'{{"role": "assistant", "content": "…"}}, and not {message!r}'
        )
    return {name: value for name, value in message.items() if value is not None}


def _checked(answer: Any, hook: Any) -> Any:
    if hasattr(answer, "__await__"):
        return _checked_later(answer, hook)
    what = "`encode_response` must return a dict of `embeddings`"
    if not isinstance(answer, dict):
        raise TypeError(f"{what}, not a {type(answer).__name__}")
    if "embeddings" not in answer:
        raise ValueError(f"{what}, and this one has only: {', '.join(map(str, answer))}")
    vectors = _as_list(answer["embeddings"])
    if not isinstance(vectors, (list, tuple)):
        raise TypeError(f"{what} as a list or an array, not a {type(vectors).__name__}")
    _check_numbers(vectors, hook)
    return {"embeddings": vectors, **{name: answer.get(name) or 0 for name in _USAGE}}


async def _checked_later(answer: Any, hook: Any) -> Any:
    return _checked(await answer, hook)


class NotAnEmbedding(ValueError):
    """An invalid embedding.

    Attributes:
        client_detail: The text for clients.
        input: The index of its input in the request.
    """

    def __init__(self, hook: Any, input: int, fault: str) -> None:
        self.client_detail = f"`{hook}` returned an embedding that is {fault}"
        super().__init__(f"input {input}: {self.client_detail}")
        self.input = input


def _check_numbers(vectors: Any, hook: Any) -> None:
    are_many = any(
        isinstance(_as_list(each), (list, tuple)) for each in (*vectors[:1], *vectors[-1:])
    )
    for input, vector in enumerate(vectors if are_many else [vectors]):
        fault = _fault_of(_as_list(vector))
        if fault is not None:
            raise NotAnEmbedding(hook, input, fault)


def _fault_of(vector: Any) -> Any:
    """Returns what is wrong with a vector, if anything."""
    if not isinstance(vector, (list, tuple)):
        return f"not a list of numbers: it is a {type(vector).__name__}"
    try:
        # The sum tells, and is fast; that of large numbers may overflow.
        if math.isfinite(sum(vector)):
            return None
        wrong = next((number for number in vector if not math.isfinite(number)), None)
        return None if wrong is None else f"not finite: it contains {wrong}"
    except OverflowError:
        return "not finite: it contains an integer that no float can hold"
    except TypeError:
        wrong = next((x for x in vector if not isinstance(x, numbers.Number)), None)
        return f"not a list of numbers: it contains a {type(wrong).__name__}"


def _as_list(array: Any) -> Any:
    return array.tolist() if hasattr(array, "tolist") else array


def _request_maker(protocol: str) -> Any:
    """Returns what makes a request of the value of its JSON."""
    is_chat = protocol == OpenAISpec.protocol
    if not _has_pydantic():
        return records.chat_request if is_chat else records.embedding_request
    if is_chat:
        from litplex._model.chat import ChatCompletionRequest

        # The server asks once for each of the `n` answers that a client wants.
        return lambda value: _validated(ChatCompletionRequest, {**value, "n": 1})
    from litplex._model.embeddings import EmbeddingRequest

    return lambda value: _validated(EmbeddingRequest, value)


def _has_pydantic() -> bool:
    try:
        from pydantic import VERSION
    except ImportError:
        return False
    return not VERSION.startswith("1.")


def _validated(model: Any, value: Any) -> Any:
    from pydantic import ValidationError

    # A null is as if it were not there.
    fields = model.model_fields
    value = {name: v for name, v in value.items() if v is not None or name not in fields}
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise HTTPException(422, json.loads(error.json(include_url=False))) from None
