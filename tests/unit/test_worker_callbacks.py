"""The calls of a model's callbacks by its worker, and their order."""

import textwrap

import pytest

RECORDER = """
    class Recorder:
        def __getattr__(self, event):
            if not event.startswith("on_"):
                raise AttributeError(event)
            return lambda lit_api: say(f"{event} {type(lit_api).__name__}")

    class Model(ls.LitAPI):
        def __init__(self, **options):
            super().__init__(**options)
            self._litserve_callbacks = [Recorder()]

        def setup(self, device):
            say("setup")
"""
SAID = ("decode", "batch", "predict", "encode", "closed")
SETUP = ["on_before_setup", "setup", "on_after_setup"]


def around(hook, *inside):
    return [f"on_before_{hook}", *inside, f"on_after_{hook}"]


@pytest.fixture
def recorded(worker):
    """Starts a model with a callback that says its events."""

    def start(model, args=None, **setup):
        return worker(textwrap.dedent(RECORDER) + textwrap.dedent(model), args, **setup)

    return start


def events(server):
    """Returns the events since the setup, without the name of the model and errors."""
    said = server.errors.replace(" API\n", "\n").splitlines()
    assert said[:3] == SETUP
    return [line for line in said[3:] if line.startswith("on_") or line in SAID]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_each_hook_of_a_request_is_enclosed(recorded, kind):
    model = """
        class API(Model):
            {def} decode_request(self, request):
                say("decode")
                return request["x"]

            {def} predict(self, x, context):
                say("predict")
                return x * context.setdefault("factor", 2)

            {def} encode_response(self, output, context):
                say("encode")
                return [output, context["factor"]]
    """
    server = recorded(model.replace("{def}", kind))
    server.request(1, {"x": 4})
    assert server.answers(1) == {1: (200, [8, 2])}
    assert server.end() == 0
    assert events(server) == [
        *around("decode_request", "decode"),
        *around("predict", "predict"),
        *around("encode_response", "encode"),
    ]


BATCH = """
    class API(Model):
        def decode_request(self, request):
            say("decode")
            return 10 // request

        def batch(self, inputs):
            say("batch")
            return inputs

        def predict(self, inputs):
            say("predict")
            return [x if x < 10 else ValueError("too large") for x in inputs]

        def encode_response(self, output):
            say("encode")
            return output
"""


def test_decoding_and_encoding_of_a_batch_are_enclosed_as_a_whole(recorded):
    server = recorded(BATCH, {"max_batch_size": 4})
    for _ in range(2):
        server.batch([2, 0, 1, 5])
        statuses = {id: status for id, (status, _) in server.answers(4).items()}
        assert statuses == {1: 200, 2: 500, 3: 500, 4: 200}
    assert server.end() == 0
    whole = [
        *around("decode_request", *["decode"] * 4),
        "batch",
        *around("predict", "predict"),
        *around("encode_response", *["encode"] * 2),
    ]
    assert events(server) == whole * 2


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_each_item_of_a_batch_of_async_hooks_is_enclosed(recorded, kind):
    model = """
        class API(Model):
            {def} encode_response(self, output):
                say("encode")
                return output

            async def predict(self, inputs):
                return inputs
    """
    server = recorded(model.replace("{def}", kind), {"max_batch_size": 2})
    server.batch([1, 2])
    assert server.answers(2) == {1: (200, 1), 2: (200, 2)}
    assert server.end() == 0
    assert events(server) == [
        *around("decode_request") * 2,
        *around("predict"),
        *around("encode_response", "encode") * 2,
    ]


def test_a_batch_that_is_computed_again_item_by_item_is_decoded_once(recorded):
    model = """
        class API(Model):
            def predict(self, inputs):
                if len(inputs) > 1:
                    raise ValueError
                return inputs
    """
    server = recorded(model, {"max_batch_size": 2}, retry_batch_singly=True)
    server.batch([1, 2])
    assert server.answers(2) == {1: (200, 1), 2: (200, 2)}
    assert server.end() == 0
    single = [*around("predict"), *around("encode_response")]
    assert events(server) == [*around("decode_request"), "on_before_predict", *single * 2]


STREAM = """
    class API(Model):
        {def} predict(self, x):
            for step in range(2):
                say("predict")
                yield x

        {def} encode_response(self, outputs):
            {for} output in outputs:
                say("encode")
                yield output
"""
STEPS = ["predict", "encode"] * 2


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("size", [1, 2])
def test_the_generators_of_streams_are_enclosed(recorded, size, kind):
    model = STREAM.replace("{def}", kind).replace("{for}", kind.replace("def", "for"))
    server = recorded(model, {"max_batch_size": size, "stream": True})
    server.batch([3, 4][:size])
    assert server.items(ends=size) == {id: [id + 2, id + 2, 0] for id in range(1, size + 1)}
    assert server.end() == 0
    decodings = size if kind == "async def" else 1
    assert events(server) == [
        *around("decode_request") * decodings,
        "on_before_predict",
        "on_before_encode_response",
        *STEPS,
        "on_after_predict",
        "on_after_encode_response",
    ]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_generator_of_a_stream_that_is_cut_short_is_closed(recorded, kind):
    model = """
        class API(Model):
            {def} predict(self, x):
                try:
                    while True:
                        yield x
                        {sleep}
                finally:
                    say("closed")
    """
    sleep = "time.sleep(0.001)" if kind == "def" else "await asyncio.sleep(0.001)"
    server = recorded(model.replace("{def}", kind).replace("{sleep}", sleep), {"stream": True})
    server.request(1, 5)
    server.items(2)
    server.cancel(1)
    server.items(ends=1)
    assert server.end() == 0
    assert events(server) == [
        *around("decode_request"),
        "on_before_predict",
        "on_before_encode_response",
        "closed",
    ]


CHAT = """
    class API(Model):
        def __init__(self, **options):
            super().__init__(spec=ls.OpenAISpec(), **options)

        {def} predict(self, request):
            for step in range(2):
                say("predict")
                yield ["a", 5] if {batched} else "a"
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("size", [1, 2])
def test_a_chat_of_default_messages_is_enclosed(recorded, size, kind):
    model = CHAT.replace("{def}", kind).replace("{batched}", str(size > 1))
    server = recorded(model, {"max_batch_size": size})
    server.batch([{"messages": [{"role": "user", "content": "x"}]}] * size)
    message = {"role": "assistant", "content": "a"}
    expected = {1: [message, message, 0], 2: [500]}
    assert server.items(ends=size) == {id: expected[id] for id in range(1, size + 1)}
    assert server.end() == 0
    decodings = size if kind == "async def" else 1
    assert events(server) == [
        *around("decode_request") * decodings,
        "on_before_predict",
        "on_before_encode_response",
        *["predict"] * 2,
        "on_after_predict",
        "on_after_encode_response",
    ]


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("size", [1, 2])
def test_embeddings_of_the_default_form_are_enclosed(recorded, size, kind):
    model = """
        class API(Model):
            def __init__(self, **options):
                super().__init__(spec=ls.OpenAIEmbeddingSpec(), **options)

            {def} predict(self, x, context):
                for one in context if isinstance(context, list) else [context]:
                    one["prompt_tokens"] = 3
                return [[1.0]] * len(context) if isinstance(context, list) else [1.0]
    """
    server = recorded(model.replace("{def}", kind), {"max_batch_size": size})
    server.batch([{"input": "a", "model": "m"}] * size)
    answer = (200, {"embeddings": [1.0], "prompt_tokens": 3, "total_tokens": 0})
    assert server.answers(size) == {id: answer for id in range(1, size + 1)}
    assert server.end() == 0
    each = size if kind == "async def" else 1
    assert events(server) == [
        *around("decode_request") * each,
        *around("predict"),
        *around("encode_response") * each,
    ]


def test_a_batch_whose_hooks_get_contexts_is_enclosed(recorded):
    server = recorded(
        """
        class API(Model):
            def batch(self, inputs, context):
                for one in context:
                    one["factor"] = len(inputs)
                return inputs

            def predict(self, inputs):
                return inputs

            def unbatch(self, output, context):
                return [x * one["factor"] for x, one in zip(output, context)]
        """,
        {"max_batch_size": 2},
    )
    server.batch([3, 4])
    assert server.answers(2) == {1: (200, 6), 2: (200, 8)}
    assert server.end() == 0
    hooks = ("decode_request", "predict", "encode_response")
    assert events(server) == [event for hook in hooks for event in around(hook)]


def test_a_hook_that_raises_has_no_second_event(recorded):
    server = recorded(
        """
        class API(Model):
            def predict(self, x):
                raise ls.HTTPException(418)
        """
    )
    server.request(1, 1)
    assert server.answers(1)[1][0] == 418
    assert server.end() == 0
    assert events(server) == [*around("decode_request"), "on_before_predict"]


def test_a_callback_that_raises_harms_neither_the_request_nor_other_callbacks(worker):
    server = worker(
        """
        class Broken:
            def on_before_predict(self, lit_api):
                raise ValueError("broken callback")

        class Sound:
            def on_before_predict(self, lit_api):
                say("sound")

        class API(ls.LitAPI):
            def __init__(self):
                super().__init__()
                self._litserve_callbacks = [Broken(), Sound()]

            def predict(self, x):
                return x
        """
    )
    server.request(1, 1)
    assert server.answers(1) == {1: (200, 1)}
    assert server.end() == 0
    assert "ValueError: broken callback" in server.errors
    assert "on_before_predict of the callback <model.Broken" in server.errors
    assert "\nsound\n" in server.errors


def test_hooks_that_setup_replaces_are_followed(recorded):
    server = recorded(
        """
        class API(Model):
            def setup(self, device):
                super().setup(device)
                self.predict = lambda x: -x
        """
    )
    server.request(1, 1)
    assert server.answers(1) == {1: (200, -1)}
    assert server.end() == 0
    assert events(server)[2:4] == around("predict")


def test_sequences_have_no_events(recorded):
    server = recorded(
        """
        class API(ls.ContinuousAPI):
            _litserve_callbacks = [Recorder()]
            setup = Model.setup

            def admit(self, x, context):
                return x

            def step(self, sequences):
                return [ls.Last(x) for x in sequences]
        """
    )
    server.request(1, 1)
    assert server.answers(1) == {1: (200, [1])}
    assert server.end() == 0
    assert events(server) == []
