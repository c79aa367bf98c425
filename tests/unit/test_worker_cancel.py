"""A `cancel` ends a job where it can, and its item is answered in every case."""

import pytest

SINGLE = """
    class API(ls.LitAPI):
        def predict(self, x):
            say(f"predict {x}")
            gate()
            return x
"""
BATCH = """
    class API(ls.LitAPI):
        def predict(self, inputs):
            say(f"predict {inputs}")
            gate()
            return inputs
"""
ASYNC = """
    class API(ls.LitAPI):
        async def predict(self, x):
            say(f"predict {x}")
            gate()
            return x
"""
CONTINUOUS = """
    class API(ls.ContinuousAPI):
        def admit(self, x, context):
            return x

        def step(self, sequences):
            say(f"predict {sequences[0]}")
            gate()
            return [ls.Last(x) for x in sequences]
"""
CANCELLED = (499, {"detail": "cancelled: no caller waits for the response"})


@pytest.mark.parametrize(
    ("model", "args", "output"),
    [
        (SINGLE, {}, 1),
        (BATCH, {"max_batch_size": 2}, 1),
        (ASYNC, {"max_concurrency": 1}, 1),
        (CONTINUOUS, {}, [1]),
    ],
    ids=["single", "batch", "async", "continuous"],
)
def test_an_item_that_was_not_begun_is_not_computed(worker, model, args, output):
    server = worker(model, args)
    server.request(1, 1)
    server.wait_for("predict")
    server.request(2, 2)
    server.cancel(2)
    server.open_gate()
    assert server.answers(2) == {1: (200, output), 2: CANCELLED}
    assert server.end() == 0
    assert "2" not in server.errors


@pytest.mark.parametrize("model", [SINGLE, BATCH, ASYNC], ids=["single", "batch", "async"])
def test_a_cancel_that_comes_before_its_request_or_after_its_answer(worker, model):
    server = worker(model, {"max_batch_size": 2 if model == BATCH else 1})
    server.open_gate()
    server.cancel(1)
    server.request(1, 1)
    assert server.answers(1)[1][0] in (200, 499)
    server.cancel(1)
    server.request(2, 2)
    assert server.answers(1) == {2: (200, 2)}
    assert server.end() == 0


@pytest.mark.parametrize("size", [1, 2])
def test_a_hook_that_runs_sees_it(worker, size):
    server = worker(
        """
        class API(ls.LitAPI):
            def predict(self, x, context):
                say("begun")
                contexts = context if type(context) is list else [context]
                wait_for(lambda: contexts[0].cancelled)
                return x
        """,
        {"max_batch_size": size},
    )
    server.batch([1, 2][:size])
    server.wait_for("begun")
    server.cancel(1)
    assert server.answers(size) == {id: (200, id) for id in range(1, size + 1)}
    assert server.end() == 0


STREAM = """
    class API(ls.LitAPI):
        def predict(self, x):
            try:
                while True:
                    yield x
                    time.sleep(0.001)
            finally:
                say("closed")
"""
ASYNC_STREAM = """
    class API(ls.LitAPI):
        async def predict(self, x):
            try:
                while True:
                    yield x
                    await asyncio.sleep(0.001)
            finally:
                say("closed")
"""


@pytest.mark.parametrize("credit", [1 << 20, 10], ids=["flowing", "out of credit"])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("model", [STREAM, ASYNC_STREAM], ids=["plain", "async"])
def test_a_stream_is_closed(worker, model, size, credit):
    server = worker(model, {"max_batch_size": size, "stream": True}, stream_credit=credit)
    server.batch([5] * size)
    assert all(set(items) == {5} for items in server.items(2 * size).values())
    server.cancel(*range(1, size + 1))
    server.items(ends=size)
    server.wait_for("closed")
    assert server.end() == 0
    assert server.errors == "closed\n"


@pytest.mark.parametrize("model", [STREAM, ASYNC_STREAM], ids=["plain", "async"])
def test_one_of_a_batch_of_streams_leaves(worker, model):
    server = worker(model, {"max_batch_size": 2, "stream": True})
    server.batch([1, 2])
    server.items(4)
    server.cancel(1)
    assert server.items(ends=1)[1][-1] == 0
    assert set(server.items(3)) == {2}
    server.cancel(2)
    assert server.items(ends=1)[2][-1] == 0
    assert server.end() == 0


ENDS = """
    class API(ls.LitAPI):
        {def} predict(self, inputs):
            for step in range(3):
                yield ["x" * 20] * len(inputs)
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_streams_that_only_wait_to_be_sent_are_ended(worker, kind):
    model = ENDS.replace("{def}", kind)
    server = worker(model, {"max_batch_size": 2, "stream": True}, stream_credit=30)
    server.batch([1, 2])
    assert set(server.items(4)) == {1, 2}
    assert server.is_silent()
    server.cancel(1)
    server.cancel(2)
    assert server.items(ends=2) == {1: [0], 2: [0]}
    assert server.end() == 0


@pytest.mark.parametrize("size", [1, 2])
def test_an_async_hook_is_cancelled_where_it_waits(worker, size):
    server = worker(
        """
        class API(ls.LitAPI):
            async def predict(self, x):
                try:
                    say("begun")
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.02)
                    say("cleaned up")
                    raise
        """,
        {"max_batch_size": size},
    )
    server.batch([1, 2][:size])
    server.wait_for("begun")
    server.cancel(*range(1, size + 1))
    server.cancel(1)
    assert server.answers(size) == dict.fromkeys(range(1, size + 1), CANCELLED)
    assert "cleaned up" in server.errors
    assert server.end() == 0
