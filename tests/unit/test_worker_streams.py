"""Streams: their credit, their batches, and the sequences of continuous models."""

from typing import Any

import pytest
from litplex._worker.wire import frames

KINDS = pytest.mark.parametrize("kind", ["def", "async def"])

COUNT = """
    class API(ls.LitAPI):
        {def} predict(self, count):
            for step in range(count):
                if step == 50:
                    raise ls.HTTPException(409, "fifty")
                yield f"{step:06}"
"""


def counted(count):
    return [f"{step:06}" for step in range(count)]


@KINDS
def test_streams_keep_their_order_and_their_errors(worker, kind):
    server = worker(COUNT.replace("{def}", kind), {"stream": True})
    for id, count in ((1, 5), (2, 50), (3, 60), (4, 0)):
        server.request(id, count)
    assert server.items(ends=4) == {
        1: [*counted(5), 0],
        2: [*counted(50), 0],
        3: [*counted(50), 409],
        4: [0],
    }
    assert server.end() == 0


@KINDS
def test_a_stream_stops_at_its_credit_and_goes_on_with_more(worker, kind):
    server = worker(COUNT.replace("{def}", kind), {"stream": True}, stream_credit=25)
    server.request(1, 8)
    # An item is ten bytes with its length; the last may overrun the credit.
    assert server.items(3) == {1: counted(3)}
    assert server.is_silent()
    server.credit(1, 20)
    assert server.items(2) == {1: counted(5)[3:]}
    assert server.is_silent()
    server.credit(1, 1000)
    assert server.items() == {1: [*counted(8)[5:], 0]}
    assert server.end() == 0


def test_an_async_stream_without_credit_stalls_no_other(worker):
    server = worker(COUNT.replace("{def}", "async def"), {"stream": True}, stream_credit=25)
    server.request(1, 8)
    server.items(3)
    for id in range(2, 6):
        server.request(id, 2)
    assert server.items(ends=4) == {id: [*counted(2), 0] for id in range(2, 6)}
    server.credit(1, 1000)
    assert server.items() == {1: [*counted(8)[3:], 0]}
    assert server.end() == 0


BATCH = """
    class API(ls.LitAPI):
        {def} predict(self, counts):
            try:
                for step in range(max(counts)):
                    yield [self.output(step, count) for count in counts]
            finally:
                say(f"closed at {step}")

        def output(self, step, count):
            if step == count:
                return ls.FINISHED
            return ls.HTTPException(409, "three") if step == 3 else step

        {def} encode_response(self, output):
            return output * 10
"""


@KINDS
def test_streams_of_a_batch_end_each_at_its_own_step(worker, kind):
    server = worker(BATCH.replace("{def}", kind), {"max_batch_size": 4, "stream": True})
    server.batch([1, 2, 9, 9])
    assert server.items(ends=4) == {
        1: [0, 0],
        2: [0, 10, 0],
        3: [0, 10, 20, 409],
        4: [0, 10, 20, 409],
    }
    server.wait_for("closed at 3")
    assert server.end() == 0


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_each_stream_of_a_batch_has_its_own_credit(worker, kind):
    model = """
        class API(ls.LitAPI):
            {def} predict(self, inputs):
                for step in range(3):
                    yield [f"{step:06}"] * len(inputs)
    """
    args = {"max_batch_size": 2, "stream": True}
    server = worker(model.replace("{def}", kind), args, stream_credit=15)
    server.batch([1, 2])
    assert server.items(4) == {1: counted(2), 2: counted(2)}
    assert server.is_silent()
    server.credit(2, 10)
    assert server.items() == {2: ["000002", 0]}
    assert server.is_silent()
    server.credit(1, 10)
    assert server.items() == {1: ["000002", 0]}
    assert server.end() == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("raise ls.HTTPException(422, 'no')", 422),
        ("yield inputs[1:]", 500),
        ("yield inputs; raise ls.HTTPException(409, 'later')", 409),
    ],
    ids=["at once", "wrong length", "later"],
)
@KINDS
def test_a_batch_of_streams_that_breaks(worker, kind, body, status):
    model = f"""
        class API(ls.LitAPI):
            {kind} predict(self, inputs):
                {body}
                yield inputs
    """
    server = worker(model, {"max_batch_size": 2, "stream": True})
    server.batch([1, 2])
    first = 1 if status == 409 else 0
    assert server.items(ends=2) == {id: [id] * first + [status] for id in (1, 2)}
    server.request(3, 3)
    server.items()
    assert server.end() == 0


# Counts up for each sequence, to the number in the request: `{"to": …}`.
CONTINUOUS = """
    class API(ls.ContinuousAPI):
        def decode_request(self, request):
            return dict(request, at=0)

        def admit(self, x, context):
            if x["to"] < 0:
                raise ls.HTTPException(422, "negative")
            say(f"admit {x['to']}")
            return x

        def step(self, sequences):
            say(f"step of {len(sequences)}")
            if any("raise" in x for x in sequences):
                raise ls.HTTPException(503, "step")
            time.sleep(0.002)
            return [self.advance(x) for x in sequences]

        def advance(self, x):
            x["at"] += 1
            if "forever" in x:
                return "tick"
            if x["at"] > x["to"]:
                return ls.FINISHED
            if x["at"] == x["to"] == 4:
                return ls.Last("four")
            if x["at"] == x["to"] == 5:
                return ls.HTTPException(409, "five")
            return None if x["at"] == 2 else x["at"]

        def finish(self, sequence, reason):
            say(f"finish {sequence['to']} {reason}")
"""
OUTPUTS: dict[int, list] = {0: [], 1: [1], 3: [1, 3], 4: [1, 3, "four"], 5: [1, 3, 4]}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_sequences_go_from_admit_to_finish(worker, stream):
    server = worker(CONTINUOUS, {"max_batch_size": 3, "stream": stream})
    assert server.traits["concurrency"] == 3
    assert server.traits["max_batch_size"] == 1
    wanted = [0, 1, 3, 4, 5, -1]
    for id, to in enumerate(wanted):
        server.request(id, {"to": to})
    status = {5: 409, -1: 422}
    if stream:
        expected = {id: [*OUTPUTS.get(to, []), status.get(to, 0)] for id, to in enumerate(wanted)}
        assert server.items(ends=6) == expected
    else:
        details = {5: (409, {"detail": "five"}), -1: (422, {"detail": "negative"})}
        assert server.answers(6) == {
            id: details.get(to, (200, OUTPUTS.get(to))) for id, to in enumerate(wanted)
        }
    assert server.end() == 0
    said = server.errors.splitlines()
    assert "step of 3" in said
    assert "step of 4" not in said
    assert sorted(line for line in said if line.startswith("finish")) == [
        "finish 0 finished",
        "finish 1 finished",
        "finish 3 finished",
        "finish 4 finished",
        "finish 5 error",
    ]


def test_a_sequence_joins_while_others_run_and_a_cancel_frees_a_place(worker):
    server = worker(CONTINUOUS, {"max_batch_size": 2, "stream": True})
    server.request(1, {"to": 100, "forever": True})
    assert server.items(3) == {1: ["tick"] * 3}
    server.request(2, {"to": 200, "forever": True})
    while 2 not in server.items(1):
        pass
    # There is no place for a third, and one that waits may leave.
    server.request(3, {"to": 1})
    server.request(4, {"to": 7})
    server.cancel(4)
    while 4 not in (got := server.items(1)):
        pass
    assert got == {4: [499]}
    assert "admit 1\n" not in server.errors
    server.cancel(1)
    server.wait_for("finish 100 cancelled")
    ends: dict[int, Any] = {}
    while 3 not in ends or 1 not in ends:
        for id, items in server.items(1).items():
            if type(items[-1]) is int and id == 1:
                ends[1] = items[-1]
            elif id == 3:
                ends[3] = [*ends.get(3, []), *items]
    assert ends == {1: 499, 3: [1]}
    server.cancel(2)
    server.wait_for("finish 200 cancelled")
    assert server.end() == 0
    assert "admit 7" not in server.errors


def test_a_step_that_raises_fails_all_and_those_that_join_later_are_served(worker):
    server = worker(CONTINUOUS, {"max_batch_size": 2})
    server.request(1, {"to": 100, "forever": True})
    server.wait_for("admit 100")
    server.request(2, {"to": 50, "raise": True})
    assert server.answers(2) == dict.fromkeys((1, 2), (503, {"detail": "step"}))
    server.request(3, {"to": 1})
    assert server.answers(1) == {3: (200, [1])}
    assert server.end() == 0
    assert "finish 100 error" in server.errors
    assert "finish 50 error" in server.errors


def test_a_step_of_the_wrong_length_names_the_expected_length(worker):
    server = worker(
        """
        class API(ls.ContinuousAPI):
            def admit(self, x, context):
                return x

            def step(self, sequences):
                return []
        """
    )
    server.request(1, 1)
    assert server.answers(1) == {1: (500, {"detail": "Batch size mismatch"})}
    rule = "step must give one entry for each sequence: expected 1, got 0"
    server.wait_for(rule)
    assert server.end() == 0


def test_a_sequence_without_credit_is_left_out_until_it_has_some(worker):
    args = {"max_batch_size": 2, "stream": True}
    server = worker(CONTINUOUS, args, stream_credit=20)
    server.request(1, {"to": 100, "forever": True})
    assert server.items(3) == {1: ["tick"] * 3}
    assert server.is_silent()
    server.request(2, {"to": 1})
    assert server.items() == {2: [1, 0]}
    server.credit(1, 10)
    assert server.items(1) == {1: ["tick"]}
    server.send("control", frames.encode(frames.CANCEL, id=1))
    assert server.items()[1][-1] == 499
    assert server.end() == 0
    assert "step of 2" not in server.errors


FORMAT = """
    class API(ls.LitAPI):
        {def} predict(self, x):
            if {batched}:
                yield [x[0], ls.FINISHED]
            else:
                yield x
            yield [{"n": 2}, "late"] if {batched} else {"n": 2}

        {encode}

        def format_encoded_response(self, data):
            if data == "refused":
                raise ls.HTTPException(418)
            return f"data: {super().format_encoded_response(data)}\\n"
"""
ENCODE = {
    "default": "",
    "each": """def encode_response(self, output):
            return output""",
    "whole": """{def} encode_response(self, outputs):
            {for} output in outputs:
                yield output""",
}


@KINDS
@pytest.mark.parametrize("encode", ENCODE)
@pytest.mark.parametrize("size", [1, 2])
def test_a_stream_has_the_form_that_its_model_gives_it(worker, kind, encode, size):
    model = FORMAT.replace("{encode}", ENCODE[encode]).replace("{batched}", str(size > 1))
    model = model.replace("{def}", kind).replace("{for}", kind.replace("def", "for"))
    server = worker(model, {"max_batch_size": size, "stream": True})
    server.batch(["text", "other"][:size])
    second = {2: [0]} if size > 1 else {}
    expected = ["data: text\n", 'data: {"n": 2}\n\n', 0]
    assert server.items(ends=size) == {1: expected, **second}
    server.batch(["refused", "other"][:size])
    assert server.items(ends=size) == {1: [418], **second}
    assert server.end() == 0


def test_the_outputs_of_sequences_have_the_form_that_their_model_gives_them(worker):
    server = worker(
        """
    class API(ls.ContinuousAPI):
        def admit(self, x, context):
            return x

        def step(self, sequences):
            return [ls.Last({"x": x}) for x in sequences]

        def encode_response(self, output, context):
            return {**output, "method": context.method}

        def format_encoded_response(self, data):
            return f"{sorted(data)}"
    """,
        {"stream": True},
    )
    server.request(1, 3)
    assert server.items() == {1: ["['method', 'x']", 0]}
    assert server.end() == 0


def test_only_streams_are_formatted(worker):
    server = worker(
        """
    class API(ls.LitAPI):
        def predict(self, x):
            return x

        def format_encoded_response(self, data):
            return "formatted"
    """
    )
    server.request(1, 3)
    assert server.answers(1) == {1: (200, 3)}
    assert server.end() == 0
