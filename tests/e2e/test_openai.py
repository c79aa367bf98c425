"""The official client of the OpenAI API against models of one's own."""

import base64
import json
import struct

import httpx
import pytest

openai = pytest.importorskip("openai")

CHAT = """
    class Chat(ls.LitAPI):
        def predict(self, request, context):
            last = request.messages[-1].content
            if last == "fail":
                raise ls.HTTPException(429, "too much")
            if last == "break":
                yield "half"
                raise RuntimeError("broken")
            if last == "context":
                yield str([context["temperature"], context["max_tokens"], context["n"]])
                return
            if not isinstance(last, str):
                yield ",".join(part.type for part in last)
                return
            words = last.split()
            for word in words:
                yield word + " "
            yield {"role": "assistant", "content": "", "prompt_tokens": len(words),
                   "completion_tokens": len(words), "total_tokens": 2 * len(words)}

    ls.LitServer(Chat(spec=ls.OpenAISpec())).run(port=0)
"""
TOOLS = """
    class Tools(ls.LitAPI):
        def predict(self, request):
            names = [tool.function.name for tool in request.tools]
            yield {"role": "assistant", "content": None, "tool_calls": [
                {"id": f"call_{i}", "type": "function",
                 "function": {"name": name, "arguments": '{"a": 1}'}}
                for i, name in enumerate(names)]}

    ls.LitServer(Tools(spec=ls.OpenAISpec())).run(port=0)
"""
BATCHED = """
    class Batched(ls.LitAPI):
        def predict(self, requests):
            for i in range(3):
                yield [f"{len(requests)}" for request in requests]

    class Awaited(ls.LitAPI):
        async def predict(self, request):
            for word in request.messages[-1].content.split():
                yield word

    batched = Batched(
        max_batch_size=4, batch_timeout=0.3, spec=ls.OpenAISpec(), api_path="/batched")
    awaited = Awaited(enable_async=True, spec=ls.OpenAISpec())
    ls.LitServer([batched, awaited]).run(port=0)
"""
EMBED = """
    class Embed(ls.LitAPI):
        def predict(self, inputs):
            texts = [inputs] if isinstance(inputs, str) else inputs
            if isinstance(texts[0], int):
                texts = [texts]
            return [[3.0, 4.0, float(len(text))] for text in texts]

    class Batched(ls.LitAPI):
        def predict(self, inputs):
            return [[float(len(text)), float(len(inputs))] for text in inputs]

    batched = Batched(max_batch_size=8, batch_timeout=0.3, api_path="/batched/embeddings",
                      spec=ls.OpenAIEmbeddingSpec())
    named = Embed(spec=ls.OpenAIEmbeddingSpec(), api_path="/small/embeddings")
    ls.run_servers(
        ls.LitServer([Embed(spec=ls.OpenAIEmbeddingSpec()), batched]),
        ls.LitServer(named, name="acme/small", aliases=["small", "tiny"]),
        port=0,
    )
"""


@pytest.fixture
def client(serve):
    """Starts a program; returns a client of it."""
    clients = []

    def start(program, base="/v1"):
        server = serve(program)
        http = httpx.Client(timeout=30)
        clients.append(http)
        return openai.OpenAI(
            base_url=server.url + base, api_key="none", max_retries=0, http_client=http
        )

    yield start
    for http in clients:
        http.close()


def ask(client, content, **options):
    messages = [{"role": "user", "content": content}]
    return client.chat.completions.create(model="m", messages=messages, **options)


def test_a_completion_is_whole(client):
    client = client(CHAT)
    answer = ask(client, "one two", n=2)
    assert answer.id.startswith("chatcmpl-") and answer.model == "m"
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.message.content == "one two "
        assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4, 8)


def test_a_completion_is_streamed(client):
    client = client(CHAT)
    options = {"include_usage": True}
    chunks = list(ask(client, "one two", n=2, stream=True, stream_options=options))
    assert len({chunk.id for chunk in chunks}) == 1
    said = {0: "", 1: ""}
    ends = []
    for chunk in chunks:
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            ends += [choice.finish_reason] if choice.finish_reason else []
    assert said == {0: "one two ", 1: "one two "}
    assert ends == ["stop", "stop"]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 8
    # LitServe tells it in the last chunk, without being asked.
    *_, last = ask(client, "one", stream=True)
    assert last.usage.total_tokens == 2


def test_hooks_see_the_request(client):
    client = client(CHAT)
    said = ask(client, "context", max_tokens=7, temperature=0.5, n=2)
    assert [choice.message.content for choice in said.choices] == ["[0.5, 7, 1]"] * 2
    assert ask(client, "context").choices[0].message.content == "[0.7, None, 1]"
    audio = base64.b64encode(b"RIFF").decode()
    parts = [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "input_audio", "input_audio": {"data": audio, "format": "wav"}},
    ]
    assert ask(client, parts).choices[0].message.content == "text,image_url,input_audio"
    developer = [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": "yes"}]
    answer = client.chat.completions.create(model="m", messages=developer)
    assert answer.choices[0].message.content == "yes "


def test_a_length_is_a_reason_to_end(client):
    answer = ask(client(CHAT), "one two three", max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called(client, stream):
    client = client(TOOLS)
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    options = {"tools": tools, "tool_choice": "required", "stream": stream}
    answer = ask(client, "call", **options)
    if not stream:
        calls = answer.choices[0].message.tool_calls
        assert answer.choices[0].finish_reason == "tool_calls"
    else:
        chunks = [choice for chunk in answer for choice in chunk.choices]
        calls = [call for choice in chunks for call in choice.delta.tool_calls or []]
        assert [call.index for call in calls] == [0, 1]
        assert chunks[-1].finish_reason == "tool_calls"
    assert [(call.id, call.function.name) for call in calls] == [("call_0", "f"), ("call_1", "g")]


def test_errors_are_those_of_the_api(client):
    client = client(CHAT)
    with pytest.raises(openai.RateLimitError, match="too much"):
        ask(client, "fail")
    with pytest.raises(openai.RateLimitError, match="too much"):
        list(ask(client, "fail", stream=True))
    with pytest.raises(openai.InternalServerError):
        ask(client, "break")
    with pytest.raises(openai.APIError, match="Internal server error"):
        list(ask(client, "break", stream=True))
    with pytest.raises(openai.UnprocessableEntityError, match="`messages`"):
        client.chat.completions.create(model="m", messages=[])
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_batches_and_async_hooks_chat_too(client):
    client = client(BATCHED)
    assert ask(client, "one two").choices[0].message.content == "onetwo"
    batched = client.with_options(base_url=str(client.base_url).replace("/v1", ""))
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 3}
    answer = batched.post("/batched", body=body, cast_to=httpx.Response).json()
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["333"] * 3


def test_models_are_listed(client):
    client = client(EMBED)
    assert [model.id for model in client.models.list()] == ["Embed", "Batched", "acme/small"]
    assert client.models.retrieve("Embed").owned_by == "litplex"
    for name in ("acme/small", "tiny"):
        model = client.models.retrieve(name)
        assert (model.id, model.aliases) == ("acme/small", ["small", "tiny"])
    info = httpx.get(str(client.base_url).replace("/v1/", "/info")).json()
    assert [endpoint["name"] for endpoint in info["endpoints"]] == [
        "Embed",
        "Batched",
        "acme/small",
    ]


def test_embeddings(client):
    client = client(EMBED)
    for given, length in [("abc", 3), ([1, 2, 3, 4], 4)]:
        answer = client.embeddings.create(model="m", input=given, encoding_format="float")
        assert [item.embedding for item in answer.data] == [[3.0, 4.0, length]]
    answer = client.embeddings.create(model="m", input=[[1], [1, 2]])
    assert [item.embedding[2] for item in answer.data] == [1.0, 2.0]
    short = client.embeddings.create(model="m", input="abc", dimensions=2)
    assert short.data[0].embedding == pytest.approx([0.6, 0.8])
    raw = client.embeddings.with_raw_response.create(
        model="m", input="abc", encoding_format="base64"
    )
    packed = json.loads(raw.text)["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(packed)) == (3.0, 4.0, 3.0)
    with pytest.raises(openai.UnprocessableEntityError, match="`input`"):
        client.embeddings.create(model="m", input=[])


def test_inputs_of_one_client_share_a_batch(client):
    client = client(EMBED, base="/batched")
    answer = client.embeddings.create(model="m", input=["a", "bb", "ccc"])
    assert [item.embedding for item in answer.data] == [[1.0, 3.0], [2.0, 3.0], [3.0, 3.0]]
