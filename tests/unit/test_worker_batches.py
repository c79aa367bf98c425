"""Batches that raise, `async` hooks side by side, and the control connection meanwhile."""

import struct

import pytest
from litplex._worker.wire import frames

INTERNAL = (500, {"detail": "Internal server error"})
MISMATCH = (500, {"detail": "Batch size mismatch"})

BATCH = """
    class API(ls.LitAPI):
        {def} predict(self, inputs):
            say(f"predict {inputs}")
            if "short" in inputs:
                return inputs[1:]
            if "bad" in inputs:
                raise KeyError("bad")
            if "refused" in inputs:
                raise ls.HTTPException(422, "refused")
            return inputs

        {def} encode_response(self, output):
            if output == "unsendable":
                raise ls.HTTPException(418, "teapot")
            return output

        {def} unbatch(self, output):
            return [ValueError("no") if each == "instance" else each for each in output]
"""


@pytest.fixture(params=["def", "async def"])
def batching(request, worker):
    def start(**setup):
        model = BATCH.replace("{def}", request.param)
        return worker(model, {"max_batch_size": 4}, **setup)

    return start


@pytest.mark.parametrize(
    ("values", "retries", "expected", "calls"),
    [
        (["a", "bad", "c"], True, [(200, "a"), INTERNAL, (200, "c")], 4),
        (["a", "refused"], True, [(200, "a"), (422, {"detail": "refused"})], 3),
        (["a", "bad", "c"], False, [INTERNAL] * 3, 1),
        (["a", "short", "c"], True, [MISMATCH] * 3, 1),
        (["bad"], True, [INTERNAL], 1),
        (["a", "instance", "unsendable"], True, None, 1),
    ],
    ids=["raises", "http", "no retry", "wrong length", "alone", "items"],
)
def test_a_batch_that_raises(batching, values, retries, expected, calls):
    expected = expected or [(200, "a"), INTERNAL, (418, {"detail": "teapot"})]
    server = batching(retry_batch_singly=retries)
    server.batch(values)
    assert server.answers(len(values)) == dict(enumerate(expected, 1))
    # The next batch is served.
    server.request(9, "next")
    assert server.answers(1) == {9: (200, "next")}
    assert server.end() == 0
    assert server.errors.count("predict [") == calls + 1
    is_said = "its items are computed one at a time" in server.errors
    assert is_said == (calls > 1)
    assert server.errors.count("Traceback") <= 1


def test_a_wrong_length_is_explained_once(batching):
    server = batching()
    server.batch(["a", "short", "c"])
    server.answers(3)
    assert server.end() == 0
    rule = "predict and unbatch must give one output for each input: expected 3, got 2"
    assert server.errors.count(rule) == 1


CONCURRENT = """
    class API(ls.LitAPI):
        running = most = 0

        async def predict(self, x):
            self.running += 1
            self.most = max(self.most, self.running)
            say(f"running {self.running}")
            while not os.path.exists("gate"):
                await asyncio.sleep(0.002)
            self.running -= 1
            return self.most
"""


@pytest.mark.parametrize(
    ("args", "setup", "most"),
    [
        ({}, {}, 64),
        ({"max_concurrency": 3}, {}, 3),
        ({}, {"max_concurrency": 5}, 5),
        ({"max_batch_size": 2}, {}, 1),
    ],
    ids=["default", "api", "setup", "batches"],
)
def test_async_hooks_run_side_by_side(worker, args, setup, most):
    model = CONCURRENT
    if "max_batch_size" in args:
        model += "            \n        def unbatch(self, output):\n            return [output]\n"
    server = worker(model, args, **setup)
    assert server.traits["concurrency"] == most
    count = most + 2
    for id in range(count):
        server.request(id, id)
    server.wait_for(f"running {most}\n")
    server.open_gate()
    assert server.answers(count) == dict.fromkeys(range(count), (200, most))
    assert server.end() == 0


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_ping_is_answered_while_a_model_computes(worker, kind):
    model = """
        class API(ls.LitAPI):
            {def} predict(self, x):
                say("begun")
                gate()
                return x
    """
    server = worker(model.replace("{def}", kind))
    server.request(1, 1)
    server.wait_for("begun")
    for id in range(3):
        server.ping(id)
    server.open_gate()
    assert server.answers(1) == {1: (200, 1)}


COST = """
    class API(ls.LitAPI):
        def predict(self, x{context}):
            say("begun")
            gate()
            return x

        def cost(self, request):
            if request == "refused":
                raise ls.HTTPException(422, "no text", {"x-a": "1"})
            return request["cost"]
"""


@pytest.mark.parametrize("context", ["", ", context"], ids=["plain", "context"])
def test_costs_are_measured_while_a_model_computes(worker, context):
    server = worker(COST.replace("{context}", context))
    assert server.traits["cost"] is True
    server.request(1, 1)
    server.wait_for("begun")
    assert server.measure({"cost": 2.5}) == (200, struct.pack("<d", 2.5))
    assert server.measure({"cost": True}) == (200, struct.pack("<d", 1.0))
    assert server.measure("refused") == (422, b'{"detail":"no text"}')
    internal = (500, b'{"detail":"Internal server error"}')
    for wrong in ({}, {"cost": -1}, {"cost": None}, {"cost": "4"}):
        assert server.measure(wrong) == internal
    server.send("control", frames.encode(frames.MEASURE, b"{", id=3))
    assert server.receive("control")[2] == 400
    server.open_gate()
    assert server.answers(1) == {1: (200, 1)}
    assert server.end() == 0
    assert "`cost` must return a finite number of at least 0, not -1.0" in server.errors


def test_a_model_without_a_hook_reports_that(worker):
    server = worker("class API(ls.LitAPI):\n    def predict(self, x):\n        return x\n")
    assert server.traits["cost"] is False


ECHO = """
    class API(ls.LitAPI):
        {def} predict(self, x):
            return x

        {def} teardown(self):
            say("torn down")
"""
CONTINUOUS_ECHO = """
    class API(ls.ContinuousAPI):
        def admit(self, x, context):
            return x

        def step(self, sequences):
            return [ls.Last(x) for x in sequences]

        def teardown(self):
            say("torn down")
"""
LOOPS = {
    "plain": ECHO.replace("{def}", "def"),
    "async": ECHO.replace("{def}", "async def"),
    "continuous": CONTINUOUS_ECHO,
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("way", ["bye", "data", "control"])
def test_requests_before_a_goodbye_are_answered(worker, loop, way):
    server = worker(LOOPS[loop])
    for id in range(20):
        server.request(id, id)
    if way == "bye":
        server.send("control", frames.encode(frames.BYE))
    else:
        server.socks[way].shutdown(1)
    answers = server.answers(20)
    value = (lambda id: [id]) if loop == "continuous" else (lambda id: id)
    assert answers == {id: (200, value(id)) for id in range(20)}
    assert server.process.wait(15) == 0
    assert server.errors == "torn down\n"


BROKEN = {
    "kind": frames.HEADER.pack(0, 99, 0, 0, 0),
    "flags": frames.HEADER.pack(0, frames.REQUEST, 64, 0, 0),
    "length": frames.HEADER.pack((1 << 30) + 1, frames.REQUEST, 0, 0, 0),
    "place": frames.encode(frames.PONG),
    "meta": frames.encode(frames.REQUEST, b"\xff\0\0\0", flags=frames.META),
    "no content": frames.encode(frames.REQUEST, frames.with_meta({}, b""), flags=frames.META),
    "credit": frames.encode(frames.CREDIT, b"1"),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("role", ["data", "control"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_frame_ends_the_process_with_a_sentence(worker, loop, role, what):
    server = worker(LOOPS[loop])
    server.send(role, BROKEN[what])
    assert server.process.wait(15) == 1
    said = server.errors.splitlines()
    assert said[0] == "torn down"
    assert len(said) == 2
    assert said[1].startswith("this worker ends: the server broke the protocol: ")


def test_a_broken_frame_ends_an_async_worker_that_waits_for_credit(worker):
    model = """
        class API(ls.LitAPI):
            async def predict(self, x):
                while True:
                    yield "x" * 20
    """
    server = worker(model, {"stream": True}, stream_credit=20)
    server.request(1)
    server.items(1)
    server.send("data", BROKEN["kind"])
    assert server.process.wait(15) == 1
    assert server.errors.count("\n") == 1


CONTEXTS = """
    class API(ls.LitAPI):
        {batch} batch(self, inputs, context):
            for x, one in zip(inputs, context):
                one["x"] = x
            return inputs

        {def} predict(self, inputs):
            if len(inputs) > 1 and "bad" in inputs:
                raise KeyError("bad")
            return inputs

        {batch} unbatch(self, output, context):
            return [[x, one["x"], len(context), one.method] for x, one in zip(output, context)]
"""


@pytest.mark.parametrize("batch", ["def", "async def"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_batch_and_unbatch_get_the_contexts(worker, kind, batch):
    model = CONTEXTS.replace("{def}", kind).replace("{batch}", batch)
    server = worker(model, {"max_batch_size": 4}, retry_batch_singly=True)
    assert server.traits["context"] is True
    server.batch(["a", "b"])
    answers = server.answers(2)
    assert answers == {1: (200, ["a", "a", 2, "POST"]), 2: (200, ["b", "b", 2, "POST"])}
    server.batch(["bad", "c"])
    answers = server.answers(2)
    assert answers == {1: (200, ["bad", "bad", 1, "POST"]), 2: (200, ["c", "c", 1, "POST"])}
    assert server.end() == 0


def test_contexts_of_batches_are_asked_for_where_there_are_batches(worker):
    server = worker(CONTEXTS.replace("{def}", "def").replace("{batch}", "def"))
    assert server.traits["context"] is False
    server.request(1, "a")
    assert server.answers(1) == {1: (200, "a")}
    assert server.end() == 0


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("is_whole", [False, True], ids=["steps", "whole"])
def test_unbatch_of_streams_gets_the_contexts(worker, kind, is_whole):
    unbatch = """
        {def} unbatch(self, output, context):
            return [x + one["mark"] for x, one in zip(output, context)]
    """
    whole = """
        {def} unbatch(self, outputs, context):
            {for} output in outputs:
                yield [x + one["mark"] for x, one in zip(output, context)]
    """
    model = """
    class API(ls.LitAPI):
        def batch(self, inputs, context):
            for number, one in enumerate(context):
                one["mark"] = str(number)
            return inputs

        {def} predict(self, inputs):
            yield inputs
            yield inputs
    """
    model += whole if is_whole else unbatch
    model = model.replace("{def}", kind).replace("{for}", kind.replace("def", "for"))
    server = worker(model, {"max_batch_size": 2, "stream": True})
    server.batch(["a", "b"])
    assert server.items(ends=2) == {1: ["a0", "a0", 0], 2: ["b1", "b1", 0]}
    assert server.end() == 0
