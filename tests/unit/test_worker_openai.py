"""Models with OpenAI's dialects, as the server sees their worker."""

import pytest
from litplex._worker.hooks import records
from litplex.compat.specs.openai import ChatCompletionRequest
from litplex.compat.specs.openai_embedding import EmbeddingRequest

KINDS = pytest.mark.parametrize("kind", ["def", "async def"])

CHAT = """
    class Chat(ls.LitAPI):
        def __init__(self, **options):
            super().__init__(spec=ls.OpenAISpec(), **options)
"""
EMBEDDINGS = """
    class Embed(ls.LitAPI):
        def __init__(self, **options):
            super().__init__(spec=ls.OpenAIEmbeddingSpec(), **options)
"""
WITHOUT_PYDANTIC = """
    sys.modules["pydantic"] = None
"""
REQUESTS = pytest.mark.parametrize("before", ["", WITHOUT_PYDANTIC], ids=["pydantic", "plain"])


def asked(text="Hi", **fields):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


def said(content, **fields):
    return {"role": "assistant", "content": content, **fields}


USAGE = {"prompt_tokens": 25, "completion_tokens": 10, "total_tokens": 35}


@KINDS
@REQUESTS
def test_a_chat_yields_texts_that_become_messages(worker, kind, before):
    server = worker(
        before
        + CHAT
        + f"""
    class API(Chat):
        {kind} predict(self, request):
            for word in request.messages[0].content.split():
                yield f"{{word}} {{request.n}} {{request.temperature}}"
    """
    )
    assert server.traits["stream"] is True
    assert server.traits["spec"] == "openai_chat"
    assert server.traits["context"] is False
    server.request(1, asked("a b", n=3, temperature=0.5))
    server.request(2, asked("c"))
    assert server.items(ends=2) == {
        1: [said("a 1 0.5"), said("b 1 0.5"), 0],
        2: [said("c 1 0.7"), 0],
    }
    assert server.end() == 0


@KINDS
def test_a_chat_may_yield_texts_messages_and_lists(worker, kind):
    server = worker(
        CHAT
        + f"""
    from litserve_names import ChatMessage

    class API(Chat):
        {kind} predict(self, request):
            yield None
            yield {{"content": "no role", "prompt_tokens": 1, "finish_reason": "length"}}
            yield {{"role": "tool", "content": "r", "name": None}}
            yield [{{"role": "user", "content": "x"}}, {{"role": "assistant", "content": "last"}}]
            yield ChatMessage(role="assistant", content="object")
            yield 5
    """.replace("litserve_names", "litplex.compat.specs.openai")
    )
    server.request(1, asked())
    assert server.items() == {
        1: [
            {"role": "assistant"},
            said("no role", prompt_tokens=1, finish_reason="length"),
            {"role": "tool", "content": "r"},
            said("last"),
            said("object"),
            500,
        ]
    }
    assert server.end() == 0
    assert "Malformed output from LitAPI.predict" in server.errors


def test_a_client_reads_which_output_is_not_a_message(worker):
    server = worker(
        CHAT
        + """
    class API(Chat):
        def predict(self, request):
            yield {"text": "no content"}
    """
    )
    server.request(1, asked())
    _, _, status, _, payload = server.receive()
    assert status == 500
    assert b"Malformed output from LitAPI.predict" in payload
    assert server.end() == 0


@KINDS
def test_a_chat_that_encodes_itself(worker, kind):
    loop = "for" if kind == "def" else "async for"
    server = worker(
        CHAT
        + f"""
    from litplex.compat.specs.openai import ChatMessage, ChatMessageWithUsage

    CALL = {{"id": "call_1", "type": "function",
            "function": {{"name": "f", "arguments": '{{"a": 1}}'}}}}

    class API(Chat):
        {kind} predict(self, request):
            try:
                yield from_request(request)
                yield "b"
            finally:
                say("predict is closed")

        {kind} encode_response(self, outputs):
            {loop} output in outputs:
                yield ChatMessage(role="assistant", content=output)
            yield ChatMessage(role="assistant", content="", tool_calls=[CALL])
            yield ChatMessageWithUsage(role="assistant", content="", total_tokens=35)
            yield '{{"role": "assistant", "content": "is JSON"}}'
            yield dict(role="assistant", content="", prompt_tokens=25, name=None)
            yield "no message"

    def from_request(request):
        return request.tools[0].function.name + " " + request.tool_choice.value
    """
    )
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
    server.request(1, asked(tools=[tool], tool_choice="required"))
    call = {"index": 0, "id": "call_1", "type": "function"}
    call["function"] = {"name": "f", "arguments": '{"a": 1}'}
    assert server.items() == {
        1: [
            said("f required"),
            said("b"),
            said("", tool_calls=[call]),
            said("", total_tokens=35, prompt_tokens=0, completion_tokens=0),
            said("is JSON"),
            said("", prompt_tokens=25),
            500,
        ]
    }
    server.wait_for("predict is closed")
    assert server.end() == 0
    assert "`encode_response` must yield a ChatMessage" in server.errors


def test_an_async_chat_whose_plain_generator_looks_at_no_output(worker):
    server = worker(
        CHAT
        + """
    class API(Chat):
        async def predict(self, request):
            yield "unseen"

        def encode_response(self, outputs):
            yield {"role": "assistant", "content": "of its own"}
    """,
        {"enable_async": True},
    )
    server.request(1, asked())
    assert server.items() == {1: [said("of its own"), 0]}
    assert server.end() == 0


@KINDS
@REQUESTS
def test_the_context_of_a_chat_holds_the_request(worker, kind, before):
    server = worker(
        before
        + CHAT
        + f"""
    class API(Chat):
        {kind} predict(self, request, context):
            tool = context["tools"][0]["function"]["name"]
            yield f"{{sorted(context)}}"
            values = [context[name] for name in ("temperature", "top_p", "max_tokens")]
            yield f"{{values}} {{tool}} {{context['top_k']}} {{request.seed}}"
    """
    )
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
    server.request(1, asked(max_tokens=7, tools=[tool], top_k=3, seed=4, model_dump=5))
    names, values, status = server.items()[1]
    assert values == said("[0.7, 1.0, 7] f 3 4")
    assert status == 0
    fields = (
        "frequency_penalty max_completion_tokens max_tokens metadata model n presence_penalty "
        "reasoning_effort response_format seed stop stream temperature tool_choice tools top_k "
        "top_p user"
    )
    expected = fields.split() if before else sorted([*fields.split(), "model_dump"])
    assert names == said(str(expected))
    assert server.end() == 0


@REQUESTS
@pytest.mark.parametrize("effort", ["none", "minimal", "low", "xhigh"])
def test_a_chat_gets_any_effort(worker, before, effort):
    server = worker(
        before
        + CHAT
        + """
    class API(Chat):
        def predict(self, request):
            yield request.reasoning_effort
    """
    )
    server.request(1, asked(reasoning_effort=effort))
    assert server.items() == {1: [said(effort), 0]}
    assert server.end() == 0


def test_a_request_reads_the_same_with_and_without_pydantic():
    call = {"id": "c", "index": None, "type": None, "function": {"name": "f", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "u", "detail": None}}
    schema = {"name": "s", "strict": None, "description": None, "schema": None}
    message = {"role": "user", "content": [image], "name": None, "tool_calls": [call]}
    request = {
        "messages": [message],
        "max_tokens": "5",
        "max_completion_tokens": 12345678901234567890123,
        "temperature": "0.5",
        "stream": "true",
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    for read in (ChatCompletionRequest.model_validate, records.chat_request):
        chat = read(request)
        (message,) = chat.messages
        assert (message.tool_calls[0].index, message.tool_calls[0].type) == (0, "function")
        assert message.content[0].image_url.detail == "auto"
        assert (chat.max_tokens, chat.temperature, chat.stream) == (5, 0.5, True)
        assert chat.max_completion_tokens == 12345678901234567890123
        assert chat.response_format.json_schema.strict is False
    for read in (EmbeddingRequest.model_validate, records.embedding_request):
        wanted = read({"input": [1.0, 2], "dimensions": 5.0, "get_num_items": 3})
        assert (wanted.input, wanted.dimensions, wanted.get_num_items()) == ([1, 2], 5, 1)
        assert isinstance(wanted.input[0], int)


@KINDS
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("has_encode", [False, True])
def test_the_messages_of_a_chat_have_the_form_that_its_model_gives_them(
    worker, kind, size, has_encode
):
    encode = """
        {def} encode_response(self, outputs):
            {for} output in outputs:
                yield output
    """
    model = """
    class API(Chat):
        {def} predict(self, request):
            one = {"role": "assistant", "content": "a"}
            yield [one] * len(request) if isinstance(request, list) else one

        def format_encoded_response(self, data):
            return super().format_encoded_response({**data, "content": data["content"] + "!"})
    """
    model = CHAT + model + (encode if has_encode else "")
    model = model.replace("{def}", kind).replace("{for}", kind.replace("def", "for"))
    server = worker(model, {"max_batch_size": size})
    server.batch([asked()] * size)
    assert server.items(ends=size) == {id: [said("a!"), 0] for id in range(1, size + 1)}
    assert server.end() == 0


def test_errors_of_a_chats_own_decode_request_keep_their_status(worker):
    server = worker(
        CHAT
        + """
    class API(Chat):
        def decode_request(self, request, context):
            context["seen"] = super().decode_request(request).messages[-1].content
            if context["seen"] == "no":
                raise ls.HTTPException(429, "later")
            return request.model_dump()["messages"]

        def predict(self, messages, context):
            yield from super().encode_response(["of", "super"])
            if context["seen"] == "break":
                raise RuntimeError("lost")
            yield messages[0]["content"]
    """
    )
    server.request(1, asked("no"))
    server.request(2, asked("break"))
    server.request(3, asked([{"type": "text", "text": "part"}]))
    server.request(4, {"messages": 5})
    server.request(5, [])
    assert server.items(ends=5) == {
        1: [429],
        2: [said("of"), said("super"), 500],
        3: [said("of"), said("super"), 500],
        4: [422],
        5: [422],
    }
    assert server.end() == 0


BATCHED = {"max_batch_size": 4}


@KINDS
def test_a_batch_of_chats_with_the_default_messages(worker, kind):
    server = worker(
        CHAT
        + f"""
    class API(Chat):
        {kind} predict(self, requests, context):
            assert [c["user"] for c in context] == ["1", "2", "3"]
            yield [request.messages[0].content for request in requests]
            yield ["b", {{"content": "c"}}, 5]
            yield ["d", ls.FINISHED, "e"]
    """,
        BATCHED,
    )
    server.batch([asked(str(n), user=str(n)) for n in (1, 2, 3)])
    assert server.items(ends=3) == {
        1: [said("1"), said("b"), said("d"), 0],
        2: [said("2"), said("c"), 0],
        3: [said("3"), 500],
    }
    assert server.end() == 0


@KINDS
def test_a_batch_of_chats_that_encodes_steps_with_a_context(worker, kind):
    loop = "for" if kind == "def" else "async for"
    server = worker(
        CHAT
        + f"""
    class API(Chat):
        def batch(self, inputs):
            return inputs

        {kind} predict(self, inputs, context):
            assert isinstance(context, list)
            for one in context:
                one["temperature"] = 1.0
            for word in ("Hi!", "It's"):
                yield [word] * len(inputs)

        def unbatch(self, output):
            return output

        {kind} encode_response(self, steps, context):
            {loop} outputs in steps:
                yield [{{"role": "assistant", "content": output}} for output in outputs]
            assert all(one["temperature"] == 1.0 for one in context)
            usage = dict(prompt_tokens=25, completion_tokens=10, total_tokens=35)
            yield [{{"role": "assistant", "content": "", **usage}}] * (len(context) - 1) + [7]
    """,
        BATCHED,
    )
    server.batch([asked(), asked(), asked()])
    expected = [said("Hi!"), said("It's"), said("", **USAGE), 0]
    assert server.items(ends=3) == {1: expected, 2: expected, 3: [*expected[:2], 500]}
    # A batch of one is a batch too.
    server.request(4, asked())
    assert server.items() == {4: [*expected[:2], 500]}
    assert server.end() == 0


def test_a_batch_that_unbatches_the_whole_stream(worker):
    server = worker(
        CHAT
        + """
    class API(Chat):
        def predict(self, inputs):
            yield {"texts": ["a"] * len(inputs)}

        def unbatch(self, steps):
            for step in steps:
                yield step["texts"]
    """,
        BATCHED,
    )
    server.batch([asked(), asked()])
    assert server.items(ends=2) == {1: [said("a"), 0], 2: [said("a"), 0]}
    assert server.end() == 0


def test_a_spec_of_a_class_of_its_own_encodes(worker):
    server = worker(
        """
    class Loud(ls.OpenAISpec):
        def populate_context(self, context, request):
            super().populate_context(context, request)
            context["mark"] = "!"

        def encode_response(self, outputs, context_kwargs=None):
            for output in outputs:
                yield {"role": "assistant", "content": output.upper() + context_kwargs["mark"]}

    class API(ls.LitAPI):
        def __init__(self):
            super().__init__(spec=Loud())

        def predict(self, request):
            yield "hi"
    """
    )
    server.request(1, asked())
    assert server.items() == {1: [said("HI!"), 0]}
    assert server.end() == 0


@pytest.mark.parametrize("stream", [None, True])
def test_sequences_of_a_continuous_model_are_chats(worker, stream):
    server = worker(
        """
    class API(ls.ContinuousAPI):
        def __init__(self):
            super().__init__(max_batch_size=2, spec=ls.OpenAISpec())

        def admit(self, request, context):
            return [context["user"], request.messages[0].content.split()]

        def step(self, sequences):
            return [s[1].pop(0) + s[0] if s[1] else ls.FINISHED for s in sequences]
    """,
        stream=stream,
    )
    server.request(1, asked("a b", user="1"))
    server.request(2, asked("c", user="2"))
    assert server.items(ends=2) == {1: [said("a1"), said("b1"), 0], 2: [said("c2"), 0]}
    assert server.end() == 0


def test_the_cost_of_a_chat_is_asked_with_its_request(worker):
    server = worker(
        CHAT
        + """
    class API(Chat):
        def cost(self, request):
            return len(request.messages[0].content)

        def predict(self, request):
            yield "x"
    """
    )
    status, payload = server.measure(asked("four"))
    assert (status, payload) == (200, b"\x00\x00\x00\x00\x00\x00\x10\x40")
    assert server.end() == 0


@KINDS
@REQUESTS
def test_embeddings_are_asked_for_by_their_input(worker, kind, before):
    server = worker(
        before
        + EMBEDDINGS
        + f"""
    class API(Embed):
        {kind} predict(self, x):
            return [[float(len(text)), 0.5] for text in ([x] if isinstance(x, str) else x)]
    """
    )
    assert server.traits["stream"] is False
    assert server.traits["spec"] == "openai_embeddings"
    server.request(1, {"input": "four", "model": "m"})
    server.request(2, {"input": ["a", "bc"], "model": "m", "encoding_format": "base64"})
    none = {"prompt_tokens": 0, "total_tokens": 0}
    assert server.answers(2) == {
        1: (200, {"embeddings": [[4.0, 0.5]], **none}),
        2: (200, {"embeddings": [[1.0, 0.5], [2.0, 0.5]], **none}),
    }
    assert server.end() == 0


@KINDS
def test_embeddings_are_arrays_with_a_usage(worker, kind):
    server = worker(
        EMBEDDINGS
        + f"""
    import numpy

    class API(Embed):
        {kind} decode_request(self, request):
            return request

        {kind} predict(self, request):
            vectors = numpy.ones((request.get_num_items(), 2), dtype="float32")
            return {{"list": list(vectors), "one": vectors[0]}}.get(request.user, vectors)

        {kind} encode_response(self, output):
            return {{"embeddings": output, "prompt_tokens": 3, "total_tokens": None, "other": 1}}
    """
    )
    server.request(1, {"input": ["a", "b"], "model": "m"})
    server.request(2, {"input": [[1, 2, 3]], "model": "m", "user": "list"})
    server.request(3, {"input": [1, 2, 3], "model": "m", "user": "one"})
    usage = {"prompt_tokens": 3, "total_tokens": 0}
    assert server.answers(3) == {
        1: (200, {"embeddings": [[1.0, 1.0], [1.0, 1.0]], **usage}),
        2: (200, {"embeddings": [[1.0, 1.0]], **usage}),
        3: (200, {"embeddings": [1.0, 1.0], **usage}),
    }
    assert server.end() == 0


def test_the_usage_of_embeddings_may_be_in_their_context(worker):
    server = worker(
        EMBEDDINGS
        + """
    class API(Embed):
        def predict(self, x, context):
            context["prompt_tokens"] = context["total_tokens"] = 4
            return [1.0]
    """
    )
    server.request(1, {"input": "a", "model": "m"})
    answer = {"embeddings": [1.0], "prompt_tokens": 4, "total_tokens": 4}
    assert server.answers(1) == {1: (200, answer)}
    assert server.end() == 0


@KINDS
def test_a_batch_of_embeddings(worker, kind):
    server = worker(
        EMBEDDINGS
        + f"""
    class API(Embed):
        {kind} predict(self, texts):
            return [[len(text)] for text in texts]

        {kind} encode_response(self, output):
            return output if output == [2] else {{"embeddings": output}}
    """,
        BATCHED,
    )
    server.batch([{"input": text, "model": "m"} for text in ("a", "bc", "def")])
    none = {"prompt_tokens": 0, "total_tokens": 0}
    assert server.answers(3) == {
        1: (200, {"embeddings": [1], **none}),
        2: (500, {"detail": "Internal server error"}),
        3: (200, {"embeddings": [3], **none}),
    }
    assert server.end() == 0


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("[1.0]", "must return a dict of `embeddings`, not a list"),
        ("{'output': 1}", "must return a dict of `embeddings`, and this one has only: output"),
        ("{'embeddings': 'x'}", "as a list or an array, not a str"),
        ("ls.Response(b'x')", "must return a dict of `embeddings`, not a Response"),
    ],
)
@KINDS
def test_malformed_embeddings_are_errors(worker, kind, answer, sentence):
    server = worker(
        EMBEDDINGS
        + f"""
    class API(Embed):
        def predict(self, x):
            return x

        {kind} encode_response(self, output):
            return {answer}
    """
    )
    server.request(1, {"input": "a", "model": "m"})
    assert server.answers(1) == {1: (500, {"detail": "Internal server error"})}
    assert server.end() == 0
    assert sentence in server.errors


@KINDS
def test_a_malformed_request_for_embeddings_is_the_clients_error(worker, kind):
    server = worker(
        EMBEDDINGS
        + f"""
    class API(Embed):
        {kind} predict(self, x):
            return [1.0]
    """
    )
    server.request(1, {"model": "m"})
    status, answer = server.answers(1)[1]
    assert status == 422
    assert answer["detail"][0]["loc"] == ["input"]
    assert server.end() == 0


@pytest.mark.parametrize(
    ("hooks", "setup", "reason"),
    [
        ("def predict(self, x):\n            return x", {}, "predict is not a generator"),
        ("def predict(self, x):\n            yield x", {"stream": False}, "`stream` must be True"),
    ],
)
def test_a_worker_refuses_what_the_spec_cannot_serve(worker, hooks, setup, reason):
    server = worker(CHAT + f"\n    class API(Chat):\n        {hooks}\n", **setup)
    assert reason in server.traits["reason"]
