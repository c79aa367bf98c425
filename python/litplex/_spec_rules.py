"""The rules that a model with a spec must follow, and the path of its endpoint."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from litplex._api import ContinuousAPI, LitAPI, is_async, is_generator, is_method_of
from litplex._specs import LitSpec, OpenAIEmbeddingSpec, OpenAISpec, spec_error

_DEFAULT_PATH = LitAPI.api_path

_CHAT_EXAMPLE = """
Write it like this:

    class ChatAPI(ls.LitAPI):
        {def} predict(self, request):
            {for} piece in self.model.generate(request.messages):
                yield piece

        {def} encode_response(self, outputs):   # optional
            {for} piece in outputs:
                yield {"role": "assistant", "content": piece}
"""


def path_of(api: Any) -> str:
    """Returns the path of an API: its own, or else that of its spec."""
    path: str = getattr(api, "api_path", _DEFAULT_PATH)
    spec = spec_of(api)
    return spec.api_path if spec is not None and path == _DEFAULT_PATH else path


def spec_of(api: Any) -> LitSpec | None:
    """Returns the spec of an API, if it has one."""
    spec = getattr(api, "spec", None)
    return spec if isinstance(spec, LitSpec) else None


def warn_of_path(api: Any, path: str, is_custom_path_warned: bool) -> None:
    """Warns if clients of OpenAI's library cannot reach an endpoint.

    Args:
        api: The model.
        path: The path of its endpoint.
        is_custom_path_warned: Whether to warn of a path that clients reach only with another
            ``base_url``.
    """
    spec = spec_of(api)
    # Clients append this to their `base_url`, which ends with the version.
    ending = "" if spec is None else spec.api_path.rpartition("/v1")[2]
    if not path.endswith(ending):
        warnings.warn(
            f"endpoint `{path}`: OpenAI's clients request only paths that end in `{ending}`; leave "
            "out the path, or send HTTP requests to it yourself",
            UserWarning,
            stacklevel=3,
        )
    elif spec is not None and path != spec.api_path and is_custom_path_warned:
        warnings.warn(
            f"Custom API path detected: {path}. OpenAI's clients reach it if their `base_url` "
            f"ends in `{path.removesuffix(ending)}`",
            UserWarning,
            stacklevel=4,
        )


def errors(api: LitAPI) -> list[str]:
    """Returns a sentence for each part of a model that its spec cannot serve."""
    spec = api.spec
    if spec is None:
        return []
    found = [spec_error(spec)]
    if found == [None]:
        found = [_stream_error(api, spec), *_hook_errors(api, spec)]
    return [text for text in found if text]


def _stream_error(api: LitAPI, spec: LitSpec) -> str | None:
    if bool(api.stream) != spec.stream:
        return f"`stream` must be {spec.stream} with {type(spec).__name__}; leave it out"
    return None


def _hook_errors(api: LitAPI, spec: LitSpec) -> Iterable[str | None]:
    if isinstance(spec, OpenAIEmbeddingSpec):
        return _embedding_errors(api)
    if isinstance(spec, OpenAISpec) and not isinstance(api, ContinuousAPI):
        return [_chat_error(api)]
    return []


def _chat_error(api: LitAPI) -> str | None:
    is_plain = not is_async(api.predict)
    if not is_generator(api.predict):
        what = "predict is not a generator" if is_plain else "predict must be an async generator"
    elif is_method_of(api.encode_response, LitAPI.encode_response) or is_generator(
        api.encode_response
    ):
        return None
    elif is_plain:
        what = "encode_response is not a generator"
    else:
        what = "encode_response is neither a generator nor an async generator"
    example = _CHAT_EXAMPLE.replace("{def}", "def" if is_plain else "async def")
    example = example.replace("{for}", "for" if is_plain else "async for")
    return f"{what}, and OpenAISpec sends each value as soon as it is yielded. {example}"


def _embedding_errors(api: LitAPI) -> Iterator[str]:
    if isinstance(api, ContinuousAPI):
        yield "OpenAIEmbeddingSpec is not for a ContinuousAPI; use a LitAPI"
        return
    for name in ("predict", "encode_response"):
        if is_generator(getattr(api, name)):
            yield (
                f"You are using yield in your {name} method, and OpenAIEmbeddingSpec sends "
                "embeddings all at once; replace `yield` by `return`"
            )
