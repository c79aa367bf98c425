"""Models with a spec: the errors of their servers, and their paths."""

import pickle
import warnings
from typing import Any

import litplex as ls
import pytest
from litplex._specs import LitSpec


class Chat(ls.LitAPI):
    def predict(self, request):
        yield "hi"


class AsyncChat(ls.LitAPI):
    async def predict(self, request):
        yield "hi"


class Embed(ls.LitAPI):
    def predict(self, x):
        return [1.0]


class Returning(Chat):
    def predict(self, request):
        return "hi"


class EncodingOnce(Chat):
    def encode_response(self, output):
        return output


class AsyncReturning(AsyncChat):
    async def predict(self, request):
        return "hi"


class AsyncEncodingOnce(AsyncChat):
    async def encode_response(self, output):
        return output


class AsyncEncodingPlainly(AsyncChat):
    def encode_response(self, outputs):
        yield {"role": "assistant", "content": "x"}


class EncodingAll(Chat):
    def encode_response(self, outputs):
        yield from ({"role": "assistant", "content": output} for output in outputs)


class EmbedYielding(Embed):
    def predict(self, x):
        yield 1.0


class EmbedEncodingYielding(Embed):
    def encode_response(self, output):
        yield {"embeddings": output}


class OwnSpec(LitSpec):
    api_path = "/own"


class Answering(ls.OpenAISpec):
    async def chat_completion(self, request):
        return None


def endpoint_of(server):
    return next(iter(server._endpoints(0)))


@pytest.mark.parametrize(
    ("kind", "spec", "path"),
    [
        (Chat, ls.OpenAISpec, "/v1/chat/completions"),
        (AsyncChat, ls.OpenAISpec, "/v1/chat/completions"),
        (EncodingAll, ls.OpenAISpec, "/v1/chat/completions"),
        (AsyncEncodingPlainly, ls.OpenAISpec, "/v1/chat/completions"),
        (Embed, ls.OpenAIEmbeddingSpec, "/v1/embeddings"),
    ],
)
def test_a_spec_sets_the_path_and_the_stream(kind, spec, path):
    with_spec = kind(spec=spec())
    assert (with_spec.api_path, with_spec.stream) == (path, spec.stream)
    given_later = kind()
    given_later.spec = spec()
    servers = [
        ls.LitServer(with_spec),
        ls.LitServer(kind(), spec=spec()),
        ls.LitServer(given_later),
    ]
    for server in servers:
        endpoint = endpoint_of(server)
        assert (endpoint["path"], endpoint["stream"]) == (path, spec.stream)
        assert "spec" not in endpoint
        assert server.apis[0].stream is spec.stream
        assert isinstance(pickle.loads(pickle.dumps(server.apis[0])).spec, spec)


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: ls.LitServer(Chat(spec=ls.OpenAISpec(), api_path="/chat")), "/chat"),
        (lambda: ls.LitServer(Chat(api_path="/chat"), spec=ls.OpenAISpec()), "/chat"),
        (lambda: ls.LitServer(Chat(), spec=ls.OpenAISpec(), api_path="/chat"), "/chat"),
        (lambda: ls.LitServer(Chat(spec=ls.OpenAISpec()), "/v1/embeddings"), "/v1/embeddings"),
        (lambda: ls.LitServer(Embed(spec=ls.OpenAIEmbeddingSpec()), path="/e"), "/e"),
    ],
)
def test_a_custom_path_wins_with_a_warning(make, path):
    with pytest.warns(UserWarning, match=f"endpoint `{path}`: OpenAI's clients request only"):
        server = make()
    assert endpoint_of(server)["path"] == path


def test_a_path_that_clients_reach_needs_no_warning():
    path = "/llama/v1/chat/completions"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        server = ls.LitServer(Chat(spec=ls.OpenAISpec(), api_path=path))
        plain = ls.LitServer(Embed(api_path="/anything"))
    assert endpoint_of(server)["path"] == path
    assert endpoint_of(plain)["path"] == "/anything"


@pytest.mark.parametrize(
    ("api", "spec", "reason"),
    [
        (Returning(), ls.OpenAISpec(), "predict is not a generator"),
        (EncodingOnce(), ls.OpenAISpec(), "encode_response is not a generator"),
        (AsyncReturning(), ls.OpenAISpec(), "predict must be an async generator"),
        (
            AsyncEncodingOnce(enable_async=True),
            ls.OpenAISpec(),
            "encode_response is neither a generator nor an async generator",
        ),
        (EmbedYielding(), ls.OpenAIEmbeddingSpec(), "yield in your predict method"),
        (EmbedEncodingYielding(), ls.OpenAIEmbeddingSpec(), "yield in your encode_response method"),
        (ls.ContinuousAPI(), ls.OpenAIEmbeddingSpec(), "not for a ContinuousAPI"),
        (Chat(), OwnSpec(), "does not have the protocol of OwnSpec"),
        (Chat(), Answering(), "Answering.chat_completion would not be called"),
        (Chat(), "openai", "`spec` must be OpenAISpec\\(\\) or OpenAIEmbeddingSpec\\(\\)"),
        (Chat(), ls.OpenAISpec, "not a class; write `OpenAISpec\\(\\)`"),
        ("model.py:API", ls.OpenAISpec(), "`spec` needs an instance"),
        ([Chat(), Embed(api_path="/e")], ls.OpenAISpec(), "`spec` is for one API"),
    ],
)
def test_a_model_that_a_spec_cannot_serve_is_refused_with_a_reason(api, spec, reason):
    with pytest.raises(ValueError, match=reason):
        ls.LitServer(api, spec=spec)


@pytest.mark.parametrize("spec", [OwnSpec(), Answering(), "openai", ls.OpenAISpec])
def test_an_api_refuses_an_invalid_spec(spec):
    with pytest.raises(ValueError, match="`spec`"):
        Chat(spec=spec)


def test_a_stream_that_the_spec_does_not_have_is_refused():
    with pytest.raises(ValueError, match="`stream` must be True with `spec`"):
        ls.LitServer(Chat(spec=ls.OpenAISpec()), stream=False)
    with pytest.raises(ValueError, match="`stream` must be False with `spec`"):
        ls.LitServer(Embed(spec=ls.OpenAIEmbeddingSpec()), stream=True)


def test_hooks_of_an_api_do_what_its_spec_does():
    chat = Chat(spec=ls.OpenAISpec())
    assert list(chat.encode_response(["a", None])) == [
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": None},
    ]
    with pytest.raises(ls.HTTPException) as raised:
        list(chat.encode_response([{}]))
    assert raised.value.status_code == 500
    embed = Embed(spec=ls.OpenAIEmbeddingSpec())
    assert embed.encode_response([1.0]) == {
        "embeddings": [1.0],
        "prompt_tokens": 0,
        "total_tokens": 0,
    }


def test_the_classes_of_requests_are_those_of_litserve():
    from litplex.compat import specs
    from litplex.compat.specs import openai, openai_embedding

    assert specs.OpenAISpec is openai.OpenAISpec is ls.OpenAISpec
    assert specs.OpenAIEmbeddingSpec is openai_embedding.OpenAIEmbeddingSpec
    request: Any = specs.ChatCompletionRequest.model_validate(
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "t"},
                        {"type": "image_url", "image_url": {"url": "u"}},
                        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
                    ],
                }
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"a": 1}},
            },
            "seed": 1,
        }
    )
    text, image, audio = request.messages[0].content
    assert (text.text, audio.input_audio.format) == ("t", "wav")
    assert image.image_url.detail is openai.ImageDetail.auto
    assert request.response_format.json_schema.schema_ == {"a": 1}
    assert (request.temperature, request.top_p, request.n, request.stream) == (0.7, 1.0, 1, False)
    usage = openai.UsageInfo(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    assert sum([usage, usage]) == openai.UsageInfo(
        prompt_tokens=2, completion_tokens=4, total_tokens=6
    )
    chunk = specs.ChatCompletionChunk.model_validate(
        {"model": "m", "choices": [{"delta": {"content": "x"}, "index": 0}], "usage": None}
    )
    assert chunk.id.startswith("chatcmpl-")


def test_requests_without_pydantic_have_the_same_fields_and_defaults():
    from litplex._worker.hooks import records
    from litplex.compat.specs.openai import ChatCompletionRequest
    from litplex.compat.specs.openai_embedding import EmbeddingRequest

    value = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
            },
        ],
        "n": 1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": {}}}}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"a": 1}},
        },
        "seed": 1,
    }
    record: Any = records.chat_request(value)
    model: Any = ChatCompletionRequest.model_validate(value)
    assert record.model_dump() == model.model_dump()
    assert record.messages[1].tool_calls[0].function.name == "f"
    assert record.tools[0].function.parameters == {"a": {}}
    assert "messages" not in record.model_dump(exclude={"messages"})
    for given in ("a", ["a", "b"], [1, 2], [[1], [2, 3], [4]]):
        embedding = {"input": given, "model": "m"}
        record = records.embedding_request(embedding)
        model = EmbeddingRequest.model_validate(embedding)
        assert record.model_dump() == model.model_dump()
        assert record.get_num_items() == model.get_num_items()
        assert record.ensure_list() == model.ensure_list()
    assert (record.get_num_items(), record.input) == (3, [[1], [2, 3], [4]])
