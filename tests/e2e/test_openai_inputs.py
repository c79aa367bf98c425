"""Inputs of OpenAI's clients: odd requests, messages in parts, lists to embed."""

import base64
import json
import re
import struct
import textwrap
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

openai = pytest.importorskip("openai")

# The text of the last message selects the behaviour of the model.
CHAT = """
    import json

    CALL = lambda id, name, arguments: {
        "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    FRAGMENT = lambda index, arguments: {"index": index, "function": {"arguments": arguments}}

    SAYS = {
        "words": ["one ", "two"],
        "nothing": [],
        "messages": [{"role": "assistant", "content": "one "},
                     {"role": "assistant", "content": "two"}],
        "calls": [{"role": "assistant", "content": None, "tool_calls": [call]}
                  for call in (CALL("c1", "f", '{"a":1}'), CALL("c2", "g", '{"b":2}'))],
        "fragments": [
            {"tool_calls": [{"index": 0, **CALL("c1", "f", "")}]},
            {"tool_calls": [FRAGMENT(0, '{"a"')]},
            {"tool_calls": [{"index": 1, **CALL("c2", "g", '{"b":')}, FRAGMENT(0, ":1}")]},
            {"tool_calls": [FRAGMENT(1, "2}")]},
        ],
        "reasons": [{"content": None, "reasoning_content": "I "},
                    {"content": None, "reasoning_content": "think"}, {"content": "so"}],
        "exact": [{"content": "x", "score": 1.5777777777770001,
                   "z": 12345678901234567890123, "a": {"b": 1, "a": 2}}],
        "logprobs": [{"content": token, "logprobs": {"content": [
            {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}]}}
            for token in ("a", "b")],
        "lines": ["a\\u2028b\\u2029c\\x85d"],
    }

    class Chat(ls.LitAPI):
        def predict(self, request, context):
            last = request.messages[-1]
            if last.content == "refuse":
                raise ls.HTTPException(429, {"why": "slow"}, {"Retry-After": "7"})
            if last.content == "see":
                yield json.dumps([
                    request.max_tokens, request.temperature, request.reasoning_effort,
                    last.function_call and last.function_call.name,
                    getattr(last, "cache", None)])
            elif isinstance(last.content, list):
                part = last.content[0]
                yield part.type + " " + (part.file["file_id"] if part.type == "file" else part.text)
            else:
                yield from SAYS.get(last.content, [str(last.content)])

    class Embed(ls.LitAPI):
        def predict(self, inputs):
            if "words" in inputs:
                return [[1.0], ["a"]]
            if "large" in inputs:
                return [[1e300]] * len(inputs)
            if "nan" in inputs:
                return [[1.0, float("nan") if at == 1 else 2.0] for at in range(len(inputs))]
            return [[float(len(x)), 1.5777777777770001, float(len(inputs))] for x in inputs]

    class Each(ls.LitAPI):
        def predict(self, inputs):
            own = {"refuse": ls.HTTPException(418, "no tea", {"X-Tea": "no"}), "words": ["a"],
                   "raise": ValueError("secret")}
            if not own.keys().isdisjoint(x for x in inputs if isinstance(x, str)):
                return [own.get(x, [1.0]) for x in inputs]
            return [[float("inf") if x == "nan" else float(len(x)), float(len(inputs)),
                     float(isinstance(x, str))] for x in inputs]

    class Plain(ls.LitAPI):
        def predict(self, x):
            return x

    class Together(ls.LitAPI):
        def predict(self, xs):
            return [len(xs)] * len(xs)

    def embeds(api, path, **options):
        return ls.LitServer(api, path=path, **options)

    spec = ls.OpenAIEmbeddingSpec
    each = dict(max_batch_size=8, batch_timeout=0.2)
    ls.run_servers(
        ls.LitServer(Chat(spec=ls.OpenAISpec())),
        embeds(Embed(spec=spec()), "/v1/embeddings"),
        embeds(Each(spec=spec(), **each), "/each/embeddings"),
        embeds(Each(spec=spec(), **each), "/few/embeddings", max_queue=5),
        embeds(Each(spec=spec(), **each), "/cost/embeddings", cost="input:length",
               max_batch_cost=8),
        ls.LitServer(Plain(), path="/v1/plain"),
        ls.LitServer(Together(**each), path="/together", cost="text:length", max_batch_cost=100),
        port=0,
    )
"""


def asked(content, **options):
    return {"model": "m", "messages": [{"role": "user", "content": content}], **options}


def streamed(client, content):
    """Returns the message that the official client puts together from a stream."""
    with client.chat.completions.stream(**asked(content)) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().choices[0]


def calls_of(message):
    return [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls]


def check_a_message_is_the_same_whole_and_streamed(client):
    for content, said in [("words", "one two"), ("messages", "one two"), ("nothing", "")]:
        for choice in (
            streamed(client, content),
            client.chat.completions.create(**asked(content)).choices[0],
        ):
            assert (choice.message.role, choice.message.content) == ("assistant", said), content
            assert choice.finish_reason == "stop"
    calls = [("c1", "f", '{"a":1}'), ("c2", "g", '{"b":2}')]
    for content in ("calls", "fragments"):
        chunks = client.chat.completions.create(**asked(content), stream=True)
        deltas = [d for chunk in chunks for d in chunk.choices[0].delta.tool_calls or []]
        assert {delta.index for delta in deltas} == {0, 1}
        for choice in (
            streamed(client, content),
            client.chat.completions.create(**asked(content)).choices[0],
        ):
            assert calls_of(choice.message) == calls, content
            assert choice.message.content is None
            assert choice.finish_reason == "tool_calls"
    for choice in (
        streamed(client, "reasons"),
        client.chat.completions.create(**asked("reasons")).choices[0],
    ):
        message = choice.message
        assert (message.content, message.reasoning_content) == ("so", "I think")


def check_log_probabilities_are_beside_the_message(client):
    for choice in (
        streamed(client, "logprobs"),
        client.chat.completions.create(**asked("logprobs"), logprobs=True).choices[0],
    ):
        assert [entry.token for entry in choice.logprobs.content] == ["a", "b"]
        assert choice.message.content == "ab"
        assert not hasattr(choice.message, "logprobs")


def check_an_error_of_the_model_is_sent_as_it_was_raised(server, client):
    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as raised:
            client.chat.completions.create(**asked("refuse"), stream=stream)
        assert raised.value.response.headers["retry-after"] == "7"
        assert raised.value.response.json()["detail"] == {"why": "slow"}
    answer = server.post("/each/embeddings", json={"input": "refuse"})
    assert (answer.status_code, answer.json()["detail"]) == (418, "no tea")
    assert answer.headers["x-tea"] == "no"


def check_an_error_of_one_input_names_it(server):
    for text, status, says in [
        ("refuse", 418, "input 1: no tea"),
        ("raise", 500, "endpoint `/each/embeddings`: input 1: Internal server error"),
        ("words", 500, "an embedding that is not a list of numbers: it contains a str"),
    ]:
        answer = server.post("/each/embeddings", json={"input": ["a", text, "b"]})
        assert answer.status_code == status, text
        error = answer.json()["error"]
        assert says in error["message"] and error["param"] == "input[1]", text
        assert "secret" not in error["message"]
        if status == 500:
            _, _, rest = error["message"].partition("`: ")
            server.wait_for_line(re.escape(f"ERROR /each/embeddings: {rest}"))
    answer = server.post("/v1/embeddings", json={"input": ["a", "words"]})
    assert "input 1: `predict` returned" in answer.json()["error"]["message"]
    large = {"input": ["large"], "encoding_format": "base64"}
    assert server.post("/v1/embeddings", json=large).status_code == 500
    server.wait_for_line("got 1e300 for input 0, which base64's float32 cannot hold")


def check_a_role_comes_once_for_each_choice(client):
    chunks = list(client.chat.completions.create(**asked("messages"), n=2, stream=True))
    roles = [(c.index, c.delta.role) for chunk in chunks for c in chunk.choices if c.delta.role]
    assert sorted(roles) == [(0, "assistant"), (1, "assistant")]


def check_what_a_model_says_is_not_written_anew(server):
    exact = '"score":1.5777777777770001,"z":12345678901234567890123,"a":{"b":1,"a":2}'
    assert exact in server.post("/v1/chat/completions", json=asked("exact")).text
    streamed = server.post("/v1/chat/completions", json=asked("exact", stream=True))
    assert exact in streamed.text
    lines = server.post("/v1/chat/completions", json=asked("lines", stream=True)).text
    events = [line for line in lines.splitlines() if line]
    assert json.loads(events[0].removeprefix("data: "))["choices"][0]["delta"]["content"] == (
        "a\u2028b\u2029c\x85d"
    )


def check_what_clients_send_is_taken(server):
    nulls = dict.fromkeys([
        "model", "n", "stream", "stream_options", "max_tokens", "max_completion_tokens",
        "temperature", "top_p", "stop", "user", "tools", "tool_choice", "response_format",
        "reasoning_effort", "metadata", "presence_penalty", "frequency_penalty",
    ])  # fmt: skip
    seen = {
        "null": [asked("see", **nulls), [None, 0.7, None, None, None]],
        "odd": [
            asked("see", max_tokens=-1, temperature="0.5", reasoning_effort="max"),
            [-1, 0.5, "max", None, None],
        ],
        "float": [asked("see", max_tokens=5.0, temperature=1), [5, 1.0, None, None, None]],
    }
    call = {"name": "f", "arguments": "{}"}
    message = {"role": "assistant", "content": "see", "function_call": call, "cache": "kept"}
    seen["nested"] = [{"messages": [message]}, [None, 0.7, None, "f", "kept"]]
    part_call = {"id": "c", "index": None, "type": None, "function": call}
    image = {"type": "image_url", "image_url": {"url": "u", "detail": None}}
    nulls_within = [
        {"role": "user", "content": [image], "name": None},
        {"role": "assistant", "content": None, "tool_calls": [part_call]},
    ]
    seen["nulls within"] = [
        {"messages": [*nulls_within, {**message, "cache": None}]},
        [None, 0.7, None, "f", None],
    ]
    for name, (request, expected) in seen.items():
        answer = server.post("/v1/chat/completions", json=request)
        assert answer.status_code == 200, (name, answer.text)
        assert json.loads(answer.json()["choices"][0]["message"]["content"]) == expected, name
    parts = [[{"type": "file", "file": {"file_id": "file-1"}}], [{"type": "text", "text": "t"}]]
    for part, said in zip(parts, ["file file-1", "text t"]):
        answer = server.post("/v1/chat/completions", json=asked(part))
        assert answer.json()["choices"][0]["message"]["content"] == said


def check_what_is_wrong_names_the_field(server, client):
    text = {"type": "text", "text": "a"}
    for request, param, reason in [
        (asked([text, {"type": "thinking"}]), "messages[0].content[1]", "unknown type `thinking`"),
        (asked("a", max_tokens=5.5), "max_tokens", "expected an integer, got a number"),
        (asked("a", tools=[{"type": "function"}]), "tools[0].function", "it is missing"),
        (asked("a", n=0), "n", "expected an integer from 1 to 128, got 0"),
        ({"model": "m"}, "messages", "it is missing"),
        ({"model": "m", "messages": []}, "messages", "`messages` is empty"),
    ]:
        with pytest.raises(openai.UnprocessableEntityError) as raised:
            client.post("/chat/completions", body=request, cast_to=httpx.Response)
        assert raised.value.param == param
        assert raised.value.body["message"].startswith(f"{param}: {reason}")
    for request, param in [
        ({"input": "a", "encoding_format": 1}, "encoding_format"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": []}, "input"),
    ]:
        answer = server.post("/v1/embeddings", json=request)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
        assert answer.json()["detail"].startswith(f"{param}: ")


def check_errors_of_the_server_have_the_form_of_the_api(server, client):
    with pytest.raises(openai.NotFoundError, match="there is no endpoint `/v1/responses`"):
        client.post("/responses", body={}, cast_to=httpx.Response)
    assert server.client.get("/v1/embeddings").json()["error"]["type"] == "invalid_request_error"
    assert server.client.get("/v2/else").json() == {"detail": "there is no endpoint `/v2/else`"}
    without_v1 = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    with pytest.raises(openai.NotFoundError, match=r"`base_url` .* must end in `/v1`"):
        without_v1.embeddings.create(model="any", input="a")


ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def check_json_comes_in_any_encoding(server):
    for encoding in ENCODINGS:

        def sent(path, value, encoding=encoding):
            body = json.dumps(value, ensure_ascii=False).encode(encoding)
            answer = server.post(path, content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 200, (encoding, path, answer.text)
            return answer.json()

        assert sent("/v1/plain", {"a": "größe"}) == {"a": "größe"}
        chat = sent("/v1/chat/completions", asked("größe"))
        assert chat["choices"][0]["message"]["content"] == "größe"
        for path in ("/v1/embeddings", "/each/embeddings"):
            assert sent(path, {"input": ["größe"]})["data"][0]["embedding"][0] == 5.0
    wrong = server.post("/v1/plain", content=b'"\xe4"')
    assert wrong.status_code == 400 and "not UTF-8 at byte 1" in wrong.json()["detail"]


def embeddings(server, path, **request):
    answer = server.post(path + "/embeddings", json=request)
    assert answer.status_code == 200, answer.text
    return [item["embedding"] for item in answer.json()["data"]]


def check_one_is_special_by_its_shape(server):
    # The model says how long each is, how many came, and whether each was a text.
    assert embeddings(server, "/each", input="abc") == [[3.0, 1.0, 1.0]]
    assert embeddings(server, "/each", input=["abc"], model="m") == [[3.0, 1.0, 1.0]]
    assert embeddings(server, "/each", input=["a", "bc"])[1][::2] == [2.0, 1.0]
    assert embeddings(server, "/each", input=[1, 2, 3]) == [[3.0, 1.0, 0.0]]
    assert embeddings(server, "/each", input=[[1, 2, 3]]) == [[3.0, 1.0, 0.0]]
    assert [v[::2] for v in embeddings(server, "/each", input=[[1], [1, 2]])] == [[1, 0], [2, 0]]


def check_embeddings_are_sent_as_they_were_made(server, client):
    assert "1.5777777777770001" in server.post("/v1/embeddings", json={"input": ["a"]}).text
    null = {"input": ["a"], "model": None, "encoding_format": None, "dimensions": None}
    assert server.post("/v1/embeddings", json=null).status_code == 200
    packed = server.post("/v1/embeddings", json={"input": ["a"], "encoding_format": "base64"})
    numbers = struct.unpack("<3f", base64.b64decode(packed.json()["data"][0]["embedding"]))
    assert numbers[1] == struct.unpack("<f", struct.pack("<f", 1.5777777777770001))[0]
    answer = client.embeddings.create(model="m", input=["a", "bc"])
    assert [item.embedding[0] for item in answer.data] == [1.0, 2.0]


def check_more_inputs_than_may_be_are_refused_before_any_is_made(server):
    for path, count, most in [("/each", 2049, 2048), ("/few", 6, 5)]:
        answer = server.post(path + "/embeddings", json={"input": ["a"] * count})
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == "input"
        assert f"at most {most} inputs;" in answer.json()["error"]["message"]
    # As many as may be do not fill the queue.
    assert len(embeddings(server, "/each", input=["a"] * 2048)) == 2048
    # The other fields are read with each input.
    large = {"input": ["a"] * 2000, "user": "u" * 100_000}
    assert server.post("/each/embeddings", json=large).status_code == 413
    assert server.post("/v1/embeddings", json=large).status_code == 200


def check_each_input_has_a_cost_of_its_own(server):
    # Two of four characters are all that a batch may cost.
    vectors = embeddings(server, "/cost", input=["aaaa"] * 4)
    assert [vector[1] for vector in vectors] == [2.0] * 4


def check_a_client_cannot_make_a_request_cost_less(server):
    text = "a" * 90
    for body, kind in [
        (f"text=a&text={text}".encode(), "application/x-www-form-urlencoded"),
        (json.dumps({"text": text}).encode("utf-16"), "application/json"),
        (json.dumps({"text": "a"})[:-1].encode() + f',"text":"{text}"}}'.encode(), "text/plain"),
        (text.encode(), "application/octet-stream"),
    ]:
        post = partial(server.post, "/together", content=body, headers={"Content-Type": kind})
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(post) for _ in range(4)]
        assert [answer.result().json() for answer in answers] == [1] * 4, kind


def check_an_embedding_that_is_not_finite_is_told_with_its_input(server):
    for path, hook, number in [("/v1", "predict", "nan"), ("/each", "predict", "inf")]:
        answer = server.post(path + "/embeddings", json={"input": ["a", "nan", "b"]})
        assert answer.status_code == 500
        said = f"endpoint `{path}/embeddings`: input 1: `{hook}` returned an embedding that is not"
        said += " finite"
        assert answer.json()["error"]["message"] == f"{said}: it contains {number}"
        server.wait_for_line(re.escape(said.replace("endpoint `", "").replace("`:", ":", 1)))


def test_requests_and_responses_of_openai_s_clients(serve):
    server = serve(CHAT)
    with httpx.Client(timeout=30) as http:
        client = openai.OpenAI(
            base_url=server.url + "/v1", api_key="none", max_retries=0, http_client=http
        )
        check_a_message_is_the_same_whole_and_streamed(client)
        check_a_role_comes_once_for_each_choice(client)
        check_log_probabilities_are_beside_the_message(client)
        check_an_error_of_the_model_is_sent_as_it_was_raised(server, client)
        check_an_error_of_one_input_names_it(server)
        check_what_a_model_says_is_not_written_anew(server)
        check_what_clients_send_is_taken(server)
        check_what_is_wrong_names_the_field(server, client)
        check_errors_of_the_server_have_the_form_of_the_api(server, client)
        check_json_comes_in_any_encoding(server)
        check_one_is_special_by_its_shape(server)
        check_embeddings_are_sent_as_they_were_made(server, client)
        check_more_inputs_than_may_be_are_refused_before_any_is_made(server)
        check_each_input_has_a_cost_of_its_own(server)
        check_a_client_cannot_make_a_request_cost_less(server)
        check_an_embedding_that_is_not_finite_is_told_with_its_input(server)


BY_NAME = """
    ls.run_servers(
        ls.LitServer("named.py:Chat"), ls.LitServer("named.py:Embed", path="/far"),
        ls.LitServer("named.py:Args", path="/args",
                     args={"z": 12345678901234567890123, "a": 1.5777777777770001}),
        port=0,
    )
"""
NAMED = """
    import litplex as ls

    class Chat(ls.LitAPI):
        def __init__(self):
            super().__init__(spec=ls.OpenAISpec())

        def predict(self, request):
            yield "hi"

    class Embed(ls.LitAPI):
        def __init__(self):
            super().__init__(spec=ls.OpenAIEmbeddingSpec())

        def predict(self, x):
            return [1.0]

    class Args(ls.LitAPI):
        def __init__(self, **args):
            super().__init__()
            self.args = args

        def predict(self, x):
            return list(self.args.items())
"""


def test_an_api_given_by_name_is_found_by_its_clients(serve, tmp_path):
    (tmp_path / "named.py").write_text(textwrap.dedent(NAMED))
    server = serve(BY_NAME)
    for path in ("/v1/chat/completions", "/predict"):
        answer = server.post(path, json=asked("x")).json()
        assert answer["choices"][0]["message"]["content"] == "hi", path
    args = server.post("/args", json=1).json()
    assert args == [["z", 12345678901234567890123], ["a", 1.5777777777770001]]
    assert server.post("/v1/embeddings", json={"input": "a"}).status_code == 404
    server.wait_for_line("/predict: also at `/v1/chat/completions`")
    server.wait_for_line("/far: OpenAI's clients request only paths that end in `/embeddings`")
