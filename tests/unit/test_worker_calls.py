"""Calls of hooks to other endpoints: their frames, their results, and the sentences for misuse."""

import json
import time

import pytest
from litplex._worker.wire import frames

CALLS: dict = {"calls": True}
KINDS = pytest.mark.parametrize("kind", ["plain", "async"])

# The hooks say which form of calls the request names.
FORMS = """
    class API(ls.LitAPI):
        other = ls.endpoint("/other", timeout=2.5)

        def predict(self, x):
            form, x = x
            return getattr(self, form)(x)

        def direct(self, x):
            return self.other(x)

        def named(self, x):
            return self.call("a name", x)

        def later(self, x):
            return self.other.later(x).result()

        def gather(self, xs):
            return ls.gather(*[self.other.later(x) for x in xs])

        def gathered_errors(self, xs):
            calls = [self.other.later(x) for x in xs]
            return list(map(str, ls.gather(*calls, return_exceptions=True)))

        def mapped(self, xs):
            return list(self.other.map(iter(xs), in_flight=2))

        def mapped_errors(self, xs):
            got = self.other.map(iter(xs), in_flight=2, return_exceptions=True)
            return [getattr(y, "status", y) for y in got]

        def first(self, xs):
            for y in self.other.map(xs):
                return y

        def streamed(self, x):
            return list(self.other.stream(x))

        def some(self, x):
            for y in self.other.stream(x):
                return y

        def caught(self, x):
            try:
                return self.other(x)
            except ls.CallError as error:
                return [error.status, error.detail, error.calls, error.retry_after, str(error)]

        def threads(self, xs):
            from concurrent.futures import ThreadPoolExecutor
            with ThreadPoolExecutor(8) as pool:
                return list(pool.map(self.other, xs))
"""
ASYNC_FORMS = """
    class API(ls.LitAPI):
        other = ls.endpoint("/other", timeout=2.5)

        async def predict(self, x):
            form, x = x
            return await getattr(self, form)(x)

        async def direct(self, x):
            return await self.other.acall(x)

        async def named(self, x):
            return await self.acall("a name", x)

        async def later(self, x):
            return await self.other.later(x)

        async def gather(self, xs):
            return await asyncio.gather(*[self.other.later(x) for x in xs])

        async def gathered_errors(self, xs):
            calls = [self.other.later(x) for x in xs]
            return list(map(str, await asyncio.gather(*calls, return_exceptions=True)))

        async def mapped(self, xs):
            return [y async for y in self.other.amap(iter(xs), in_flight=2)]

        async def mapped_errors(self, xs):
            async def each():
                for x in xs:
                    yield x
            got = self.other.amap(each(), in_flight=2, return_exceptions=True)
            return [getattr(y, "status", y) async for y in got]

        async def first(self, xs):
            ys = self.other.amap(xs)
            async for y in ys:
                await ys.aclose()
                return y

        async def streamed(self, x):
            return [y async for y in self.other.astream(x)]

        async def some(self, x):
            async for y in self.other.astream(x):
                return y

        async def caught(self, x):
            try:
                return await self.other.acall(x)
            except ls.CallError as error:
                return [error.status, error.detail, error.calls, error.retry_after, str(error)]

        async def threads(self, xs):
            return await asyncio.gather(*[asyncio.to_thread(self.other, x) for x in xs])
"""


@pytest.fixture
def caller(worker, kind):
    """A worker whose hooks call an endpoint, in the form that a request names."""
    return worker(FORMS if kind == "plain" else ASYNC_FORMS, **CALLS)


@KINDS
def test_a_call_says_its_callee_its_parents_and_that_its_hook_waits(caller):
    assert caller.traits["calls"] == ["/other"]
    caller.request(41, ["direct", {"a": [1, "ü"]}])
    id, call, value = caller.next_call()
    assert value == {"a": [1, "ü"]}
    assert call == {"endpoint": "/other", "timeout": 2.5, "parents": [41], "waits": True}
    caller.answer_call(id, {"b": 2})
    assert caller.answers(1) == {41: (200, {"b": 2})}
    caller.request(42, ["named", None])
    other, call, value = caller.next_call()
    assert (call, value) == ({"endpoint": "a name", "parents": [42], "waits": True}, None)
    assert other > id
    caller.answer_call(other, 3)
    assert caller.answers(1) == {42: (200, 3)}
    assert caller.end() == 0


@KINDS
def test_a_call_that_is_begun_says_when_its_hook_waits(caller):
    caller.request(1, ["later", 5])
    id, call, value = caller.next_call()
    assert (call["waits"], value) == (False, 5)
    assert caller.next_waiting() == id
    caller.answer_call(id, 6)
    assert caller.answers(1) == {1: (200, 6)}
    assert caller.end() == 0


@KINDS
def test_results_are_gathered_in_the_order_of_their_calls(caller):
    caller.request(1, ["gather", [1, 2, 3]])
    ids = caller.next_calls(3)
    assert {caller.next_waiting() for _ in range(3)} == set(ids.values())
    for value, id in reversed(list(ids.items())):
        caller.answer_call(id, int(value) * 10)
    assert caller.answers(1) == {1: (200, [10, 20, 30])}
    caller.request(2, ["gather", []])
    assert caller.answers(1) == {2: (200, [])}
    assert caller.end() == 0


@KINDS
def test_gathered_errors_cancel_no_other_call(caller):
    caller.request(1, ["gathered_errors", [1, 2]])
    ids = caller.next_calls(2)
    assert {caller.next_waiting() for _ in range(2)} == set(ids.values())
    caller.answer_call(ids["1"], {"detail": "no", "calls": ["/a", "/other"]}, 422)
    caller.answer_call(ids["2"], 20)
    assert caller.answers(1) == {1: (200, ["/a → /other failed with 422: no", "20"])}
    assert caller.end() == 0


@pytest.mark.parametrize("kind", ["plain"])
def test_an_error_that_gather_raises_cancels_the_calls_that_are_not_done(caller):
    caller.request(1, ["gather", [1, 2, 3]])
    ids = caller.next_calls(3)
    assert {caller.next_waiting() for _ in range(3)} == set(ids.values())
    caller.answer_call(ids["2"], {"detail": "full", "calls": ["/a#0", "/other"]}, 503)
    cancelled = [caller.receive("calls") for _ in range(2)]
    assert [(kind, id) for kind, _, _, id, _ in cancelled] == [
        (frames.CANCEL, ids["1"]),
        (frames.CANCEL, ids["3"]),
    ]
    detail = {"detail": "/a#0 → /other failed with 503: full", "calls": ["/a#0", "/other"]}
    kind, _, status, id, payload = caller.receive()
    assert (kind, status, id) == (frames.RESPONSE, 503, 1)
    assert json.loads(bytes(frames.split_meta(payload)[1])) == detail
    # The answers to what was cancelled are for no caller.
    caller.answer_call(ids["1"], {"detail": "cancelled"}, 499)
    caller.request(2, ["direct", 1])
    caller.answer_call(caller.next_call()[0], 2)
    assert caller.answers(1) == {2: (200, 2)}
    assert caller.end() == 0


@KINDS
def test_a_map_has_no_more_calls_in_flight_than_it_may_and_keeps_the_order(caller):
    caller.request(1, ["mapped", [0, 1, 2, 3, 4]])
    first, second = (caller.next_call()[0] for _ in range(2))
    assert caller.next_waiting() == first
    caller.answer_call(second, 10)
    # Half of those that may be in flight are answered, so that another is begun.
    caller.answer_call(first, 0)
    got: list = []
    while len(got) < 3:
        kind, _, _, id, payload = caller.receive("calls")
        if kind == frames.REQUEST:
            value = json.loads(bytes(frames.split_meta(payload)[1]))
            got.append(value)
            caller.answer_call(id, value * 10)
    assert got == [2, 3, 4]
    assert caller.answers(1) == {1: (200, [0, 10, 20, 30, 40])}
    assert caller.end() == 0


@KINDS
def test_a_map_gives_errors_in_their_places(caller):
    caller.request(1, ["mapped_errors", [0, 1]])
    for id in caller.next_calls(2).values():
        caller.answer_call(id, {"detail": "no"}, 409 if id == 1 else 200)
    assert caller.answers(1) == {1: (200, [409, {"detail": "no"}])}
    assert caller.end() == 0


@KINDS
def test_a_map_sends_what_is_ready_together_and_cancels_the_rest_when_it_is_closed(caller):
    caller.request(1, ["first", list(range(40))])
    ids = caller.next_calls(40)
    caller.answer_call(ids["0"], "zero")
    assert caller.answers(1) == {1: (200, "zero")}
    cancelled: set = set()
    while len(cancelled) < 39:
        kind, _, _, id, _ = caller.receive("calls")
        # It may have waited for the first.
        assert kind == frames.CANCEL or (kind, id) == (frames.WAITING, ids["0"])
        cancelled |= {id} if kind == frames.CANCEL else set()
    assert cancelled == {id for value, id in ids.items() if value != "0"}
    assert caller.end() == 0


@KINDS
def test_items_of_a_stream_have_their_types(caller):
    caller.request(1, ["streamed", 5])
    id, call, _ = caller.next_call()
    assert call["stream"] is True
    caller.send_items(id, {"a": 1}, [2])
    caller.send_items(id, b"text", kind=frames.TEXT_ITEMS)
    caller.end_call(id)
    assert caller.answers(1) == {1: (200, [{"a": 1}, [2], "text"])}
    caller.request(2, ["streamed", 5])
    caller.answer_call(caller.next_call()[0], "whole")
    assert caller.answers(1) == {2: (200, ["whole"])}
    caller.request(3, ["streamed", 5])
    caller.end_call(caller.next_call()[0])
    assert caller.answers(1) == {3: (200, [])}
    assert caller.end() == 0


@KINDS
def test_a_hook_says_how_much_of_a_stream_it_has_taken_when_it_waits_for_more(caller):
    caller.request(1, ["streamed", 5])
    id, call, _ = caller.next_call()
    assert call["waits"] is True
    caller.send_items(id, 1, 2)
    assert caller.next_waiting(taken=1) == id
    caller.send_items(id, 3)
    assert caller.next_waiting(taken=2) == id
    caller.end_call(id)
    assert caller.answers(1) == {1: (200, [1, 2, 3])}
    assert caller.end() == 0


@KINDS
def test_a_direct_call_of_a_stream_returns_the_list_of_its_items(caller):
    caller.request(1, ["direct", 5])
    id, call, _ = caller.next_call()
    assert "stream" not in call
    caller.send_items(id, 1, 2)
    caller.send_items(id, 3)
    caller.end_call(id)
    assert caller.answers(1) == {1: (200, [1, 2, 3])}
    assert caller.end() == 0


@KINDS
def test_a_stream_that_breaks_raises_after_its_items(caller):
    caller.request(1, ["streamed", 5])
    id = caller.next_call()[0]
    caller.send_items(id, 1)
    caller.end_call(id, 504, b'{"detail": "late", "calls": ["/a#0", "/other"]}')
    _, _, status, _, payload = caller.receive()
    assert status == 504
    assert json.loads(bytes(frames.split_meta(payload)[1]))["detail"] == (
        "/a#0 → /other failed with 504: late"
    )
    assert caller.end() == 0


@pytest.mark.parametrize("model", [FORMS, ASYNC_FORMS], ids=["plain", "async"])
def test_a_stream_gets_credit_as_it_is_read_and_is_cancelled_where_it_is_dropped(worker, model):
    caller = worker(model, stream_credit=100, **CALLS)
    caller.request(1, ["streamed", 5])
    id = caller.next_call()[0]
    for taken in (1, 2, 3):
        caller.send_items(id, "x" * 50)
        kind, _, _, credited, payload = caller.receive("calls")
        assert (kind, credited) == (frames.CREDIT, id)
        assert frames.LENGTH.unpack(payload) == (56,)
        assert caller.next_waiting(taken) == id
    caller.end_call(id)
    assert caller.answers(1) == {1: (200, ["x" * 50] * 3)}
    caller.request(2, ["some", 5])
    id = caller.next_call()[0]
    caller.send_items(id, 1, 2)
    assert caller.answers(1) == {2: (200, 1)}
    assert caller.receive("calls") == (frames.CANCEL, 0, 0, id, b"")
    # What still comes of it is for no caller.
    caller.send_items(id, 3)
    caller.end_call(id, 499)
    caller.request(3, ["direct", 5])
    caller.answer_call(caller.next_call()[0], 1)
    assert caller.answers(1) == {3: (200, 1)}
    assert caller.end() == 0


@KINDS
def test_an_error_says_its_status_detail_path_and_when_to_try_again(caller):
    caller.request(1, ["caught", 1])
    error = {"detail": "the queue is full", "calls": ["/a#0", "/b#1", "/other"]}
    meta = {"media_type": "application/json", "headers": [["Retry-After", "3"]]}
    caller.answer_call(caller.next_call()[0], error, 503, meta=meta)
    path = "/a#0 → /b#1 → /other"
    text = f"{path} failed with 503: the queue is full"
    assert caller.answers(1) == {1: (200, [503, *error.values(), "3", text])}
    # A callee whose error has no path, beside a server that knows it.
    caller.request(3, ["caught", 1])
    meta = {"calls": ["/a#0", "/other"]}
    caller.answer_call(caller.next_call()[0], {"detail": "no"}, 422, meta=meta)
    text = "/a#0 → /other failed with 422: no"
    assert caller.answers(1) == {3: (200, [422, "no", ["/a#0", "/other"], None, text])}
    caller.request(2, ["caught", 1])
    caller.answer_call(caller.next_call()[0], status=418, body=b"teapot")
    expected = [418, "teapot", ["/other"], None, "/other failed with 418: teapot"]
    assert caller.answers(1) == {2: (200, expected)}
    assert caller.end() == 0


STATUSES = {
    400: 500,
    404: 500,
    422: 500,
    429: 500,
    500: 500,
    502: 500,
    503: 503,
    504: 504,
    508: 508,
}


@KINDS
def test_an_error_that_the_hook_does_not_catch_is_its_own(caller):
    error = {"detail": {"secret": 1}, "calls": ["/a#0", "/other"]}
    meta = {"headers": [["retry-after", "7"]]}
    for status, own in STATUSES.items():
        caller.request(status, ["direct", 1])
        caller.answer_call(caller.next_call()[0], error, status, meta=meta)
        _, _, answered, id, payload = caller.receive()
        assert (answered, id) == (own, status)
        meta_of, body = frames.split_meta(payload)
        said = json.loads(bytes(body))
        assert said["calls"] == error["calls"]
        assert f"/a#0 → /other failed with {status}" in said["detail"]
        assert ("secret" in said["detail"]) is (own != 500)
        headers = [["retry-after", "7"]] if own == 503 else []
        assert meta_of["headers"] == headers
    assert caller.errors.count("Traceback") == sum(
        own not in (503, 504) for own in STATUSES.values()
    )
    assert caller.end() == 0


@KINDS
def test_threads_and_tasks_of_a_hook_call_for_its_request(caller):
    xs = list(range(20))
    caller.request(7, ["threads", xs])
    asked: list = []
    done = 0
    while done < len(xs):
        # Several at once, and answered in another order.
        while len(asked) < min(4, len(xs) - done):
            id, call, value = caller.next_call()
            assert call["parents"] == [7]
            asked.append((id, value))
        for id, value in reversed(asked):
            caller.answer_call(id, value * 2)
        done += len(asked)
        asked.clear()
    assert caller.answers(1) == {7: (200, [x * 2 for x in xs])}
    assert caller.end() == 0


def test_tasks_of_concurrent_requests_call_for_their_own(worker):
    server = worker(
        """
        class API(ls.LitAPI):
            other = ls.endpoint("/other")

            async def predict(self, x):
                both = await asyncio.gather(self.other.acall([x, 0]), self.again(x))
                task = asyncio.create_task(self.other.acall([x, 2]))
                await asyncio.sleep(0)
                return [*both, await task]

            async def again(self, x):
                await asyncio.sleep(0)
                return await self.other.acall([x, 1])
        """,
        **CALLS,
    )
    for id in range(1, 6):
        server.request(id, id)
    for _ in range(15):
        id, call, value = server.next_call()
        assert call["parents"] == [value[0]]
        server.answer_call(id, value)
    assert server.answers(5) == {id: (200, [[id, 0], [id, 1], [id, 2]]) for id in range(1, 6)}
    assert server.end() == 0


def test_calls_of_one_turn_of_an_event_loop_are_sent_in_their_order(worker):
    server = worker(
        """
        import time

        class API(ls.LitAPI):
            other = ls.endpoint("/other")

            async def predict(self, n):
                calls = [self.other.later(i) for i in range(n)]
                # It is cancelled, and the others are asked for, before the turn ends.
                calls[1].cancel()
                while not all(call.done() for call in calls):
                    time.sleep(0.001)
                return [await call for call in calls[2:]]
        """,
        **CALLS,
    )
    server.request(1, 5)
    calls = [server.next_call() for _ in range(5)]
    assert [value for _, _, value in calls] == list(range(5))
    ids = [id for id, _, _ in calls]
    assert server.receive("calls") == (frames.CANCEL, 0, 0, ids[1], b"")
    for id in ids:
        server.answer_call(id, id)
    assert server.answers(1) == {1: (200, ids[2:])}
    assert server.end() == 0


BATCHED = """
    class API(ls.LitAPI):
        other = ls.endpoint("/other")

        {def} decode_request(self, x):
            return {call}(x)

        {def} predict(self, xs):
            return [y * {call}(sum(xs)) for y in xs]

        {def} encode_response(self, y):
            return {call}(y)
"""


@pytest.mark.parametrize(
    ("define", "call"), [("def", "self.other"), ("async def", "await self.other.acall")]
)
def test_the_parents_of_a_batch_are_all_of_its_requests(worker, define, call):
    model = BATCHED.replace("{def}", define).replace("{call}", call)
    server = worker(model, {"max_batch_size": 2}, **CALLS)
    server.batch([10, 20])
    parents = []
    for _ in range(6):
        id, call, value = server.next_call()
        parents.append((call["parents"], value))
        server.answer_call(id, value)
    # Decoding is for one item; `async` hooks decode side by side.
    assert sorted(parents[:2]) == [([1], 10), ([2], 20)]
    assert parents[2:4] == [([1, 2], 30)] * 2
    assert {tuple(each) for each, _ in parents[4:]} <= {(1,), (2,), (1, 2)}
    assert server.answers(2) == {1: (200, 300), 2: (200, 600)}
    assert server.end() == 0


def test_the_parents_of_a_step_are_its_sequences(worker):
    server = worker(
        """
        class API(ls.ContinuousAPI):
            other = ls.endpoint("/other")

            def decode_request(self, x):
                return self.other(["decode", x])

            def admit(self, x, context):
                return self.other(["admit", x])

            def step(self, sequences):
                said = self.other(["step", len(sequences)])
                return [ls.Last(said) for x in sequences]

            def encode_response(self, outputs):
                return self.other(["encode", outputs])
        """,
        {"max_batch_size": 2},
        **CALLS,
    )
    server.request(1, 10)
    server.request(2, 20)
    seen: list = []
    while sum(name == "encode" for name, _ in seen) < 2:
        id, call, (name, value) = server.next_call()
        seen.append((name, call["parents"]))
        server.answer_call(id, value)
    parents = {name: [each for other, each in seen if other == name] for name, _ in seen}
    assert parents["decode"] == parents["admit"] == parents["encode"] == [[1], [2]]
    assert [1, 2] in parents["step"] or parents["step"] == [[1], [2]]
    assert set(server.answers(2)) == {1, 2}
    assert server.end() == 0


def packed(*parts):
    """Returns the metadata and the body of a packed value."""
    described, body = [], b""
    for fields, data in parts:
        body += b" " * (-len(body) % 16)
        described.append({"offset": len(body), "length": len(data), **fields})
        body += data
    return {"content": {"packed": described}}, body


ECHO = """
    class API(ls.LitAPI):
        other = ls.endpoint("/other")

        def predict(self, x):
            import array
            if x == "bytes":
                return repr(self.other(b"\\x00\\xff"))
            if x == "view":
                return repr(self.other(memoryview(array.array("h", [1, 2]))[::2]))
            if x == "nested":
                return repr(self.other({"a": [b"one", {1: bytearray(b"two")}], "b": None}))
            if x == "text":
                return repr(self.other(1))
            numpy = __import__("numpy")
            if x == "arrays":
                big = numpy.arange(6, dtype=">i2").reshape(2, 3)
                got = self.other({"images": [big, numpy.float32(1.5)], "none": numpy.empty((0, 2))})
                return [str(got["a"].dtype), got["a"].tolist(), got["a"].flags.writeable]
            got = self.other(numpy.zeros((512, 512)))
            # A view of the received bytes, in their place for numpy.
            return [got.shape, got.base is not None, got.flags.owndata, got.flags.aligned,
                    got.flags.writeable, float(got.sum())]
"""


def test_bytes_travel_as_they_are(worker):
    server = worker(ECHO, **CALLS)
    server.request(1, "bytes")
    id, meta, body = server.next_call(raw=True)
    assert (meta["content"], body) == ({"raw": "application/octet-stream"}, b"\x00\xff")
    server.answer_call(id, meta={"media_type": "image/png", "headers": []}, body=b"png")
    assert server.answers(1) == {1: (200, "b'png'")}

    server.request(2, "view")
    id, _, body = server.next_call(raw=True)
    assert body == b"\x01\0"
    server.answer_call(id, meta={"media_type": "", "headers": []}, body=b"")
    assert server.answers(1) == {2: (200, "b''")}

    server.request(3, "nested")
    id, meta, body = server.next_call(raw=True)
    text, one, two = meta["content"]["packed"]
    assert json.loads(body[: text["length"]]) == {"a": [None, {"1": None}], "b": None}
    assert (one["path"], two["path"]) == (["a", 0], ["a", 1, "1"])
    assert (one["offset"] % 16, two["offset"] % 16) == (0, 0)
    pieces = [body[part["offset"] :][: part["length"]] for part in (one, two)]
    assert pieces == [b"one", b"two"]
    meta, body = packed(({}, b'{"x": [null, 1]}'), ({"path": ["x", 0]}, b"\0\1"))
    server.answer_call(id, meta=meta, body=body)
    assert server.answers(1) == {3: (200, "{'x': [b'\\x00\\x01', 1]}")}

    server.request(4, "text")
    id = server.next_call()[0]
    meta = {"media_type": "text/plain; charset=utf-8", "headers": []}
    server.answer_call(id, meta=meta, body="grüß".encode())
    assert server.answers(1) == {4: (200, "'grüß'")}
    assert server.end() == 0


def test_arrays_travel_without_a_conversion(worker):
    pytest.importorskip("numpy")
    server = worker(ECHO, **CALLS)
    server.request(1, "arrays")
    id, meta, body = server.next_call(raw=True)
    text, big, empty = meta["content"]["packed"]
    assert json.loads(body[: text["length"]]) == {"images": [None, 1.5], "none": None}
    assert (big["dtype"], big["shape"], big["path"]) == ("<i2", [2, 3], ["images", 0])
    assert body[big["offset"] :][: big["length"]] == bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0])
    assert (empty["dtype"], empty["shape"], empty["length"]) == ("<f8", [0, 2], 0)
    part = {"path": ["a"], "dtype": "|u1", "shape": [2, 2]}
    meta, body = packed(({}, b'{"a": null}'), (part, b"\1\2\3\4"))
    server.answer_call(id, meta=meta, body=body)
    assert server.answers(1) == {1: (200, ["uint8", [[1, 2], [3, 4]], False])}

    server.request(2, "large")
    id, meta, body = server.next_call(raw=True)
    assert [part.get("path") for part in meta["content"]["packed"]] == [None, []]
    server.answer_call(id, meta={"content": meta["content"]}, body=body)
    expected = [[512, 512], True, False, True, False, 0.0]
    assert server.answers(1) == {2: (200, expected)}
    assert server.end() == 0


CALLEE = """
    class API(ls.LitAPI):
        {def} predict(self, x):
            if isinstance(x, bytes):
                return x + b"!"
            if x == "model":
                return ls.Response(b"<b>", media_type="text/html")
            if isinstance(x, dict) and "array" in x:
                array = x["array"]
                return {"twice": array * 2, "was": [array.flags.writeable, array.dtype.str]}
            return {"same": x}
"""


@pytest.mark.parametrize("define", ["def", "async def"])
def test_a_callee_gets_and_returns_values(worker, define):
    pytest.importorskip("numpy")
    server = worker(CALLEE.replace("{def}", define))

    def ask(id, meta, body, flags=frames.VALUES):
        payload = frames.with_meta(meta, body)
        server.send(
            "data", frames.encode(frames.REQUEST, payload, flags=frames.META | flags, id=id)
        )
        kind, flags, status, answered, payload = server.receive()
        assert (kind, answered) == (frames.RESPONSE, id)
        meta, body = frames.split_meta(payload) if flags & frames.META else (None, payload)
        return status, meta, bytes(body)

    part = {"path": ["array"], "dtype": "<f4", "shape": [2]}
    meta, body = packed(({}, b'{"array":null}'), (part, bytes([0, 0, 128, 63, 0, 0, 0, 64])))
    status, got, answer = ask(1, meta, body)
    text, twice = got["content"]["packed"]
    assert status == 200
    assert json.loads(answer[: text["length"]]) == {"twice": None, "was": [False, "<f4"]}
    assert (twice["path"], twice["dtype"], twice["shape"]) == (["twice"], "<f4", [2])
    assert answer[twice["offset"] :] == bytes([0, 0, 0, 64, 0, 0, 128, 64])
    # A client, whom the server does not tell of values, gets JSON.
    status, got, answer = ask(2, meta, body, flags=0)
    assert (status, got) == (200, None)
    assert json.loads(answer)["twice"] == [2.0, 4.0]
    plain = {"media_type": "application/octet-stream", "headers": []}
    assert ask(3, {"content": {"raw": "application/octet-stream"}}, b"hi") == (200, plain, b"hi!")
    assert ask(4, {"content": "json"}, b"[1]") == (200, None, b'{"same":[1]}')
    media_type = {"media_type": "text/html", "headers": []}
    assert ask(5, {"content": "json"}, b'"model"') == (200, media_type, b"<b>")
    # Without metadata.
    server.send("data", frames.encode(frames.REQUEST, b"7", flags=frames.VALUES, id=6))
    assert server.answers(1) == {6: (200, {"same": 7})}
    assert server.end() == 0


def test_a_callee_without_numpy_says_so(worker, tmp_path):
    (tmp_path / "numpy.py").write_text("raise ImportError('none here')")
    server = worker(CALLEE.replace("{def}", "def"))
    part = {"path": ["array"], "dtype": "<f4", "shape": [1]}
    meta, body = packed(({}, b'{"array":null}'), (part, bytes(4)))
    flags = frames.META | frames.VALUES
    payload = frames.with_meta(meta, body)
    server.send("data", frames.encode(frames.REQUEST, payload, flags=flags, id=1))
    status, said = server.answers(1)[1]
    assert status == 415
    assert said["detail"] == (
        "the value has a numpy array, and numpy cannot be imported here (none here); install it "
        "for this endpoint (`requirements`), or send lists"
    )
    assert server.end() == 0


def test_large_values_pass_the_connection_both_ways(worker):
    server = worker(FORMS, **CALLS)
    server.request(1, ["direct", "x" * 10_000_000])
    id, _, value = server.next_call()
    server.answer_call(id, value + "y")
    assert server.answers(1) == {1: (200, "x" * 10_000_000 + "y")}
    assert server.end() == 0


def test_a_worker_reads_responses_while_the_server_takes_no_request(worker):
    server = worker(
        """
        class API(ls.LitAPI):
            other = ls.endpoint("/other")

            def predict(self, x):
                first = self.other.later("small")
                gate()
                return [len(self.other("x" * 20_000_000)), len(first.result())]
        """,
        **CALLS,
    )
    server.request(1, None)
    first = server.next_call()[0]
    server.open_gate()
    # Neither fits the buffers of the connection, and this side does not read meanwhile.
    server.answer_call(first, "y" * 30_000_000)
    id, _, value = server.next_call()
    server.answer_call(id, value)
    assert server.answers(1) == {1: (200, [20_000_000, 30_000_000])}
    assert server.end() == 0


MISUSE = """
    import threading

    class Strange:
        __slots__ = ()

    class API(ls.LitAPI):
        other = ls.endpoint("/other")

        def setup(self, device):
            self.said = []
            self.attempt(lambda: self.other(1))

        def attempt(self, call):
            try:
                self.said.append(call())
            except Exception as error:
                self.said.append(f"{type(error).__name__}: {error}")
            return self.said[-1]

        def cost(self, x):
            self.attempt(lambda: self.other(1))
            return 1

        def predict(self, x):
            if x == "dials":
                return self.other(x)
            if x == "said":
                return self.said
            if x == "forked":
                read, write = os.pipe()
                call, items = self.other.later("forked"), self.other.stream("forked")
                if os.fork() == 0:
                    calls = (lambda: self.other(1), call.result, lambda: next(items))
                    os.write(write, "|".join(map(self.attempt, calls)).encode())
                    # Nothing of it is cancelled here.
                    items.close()
                    call.cancel()
                    os._exit(0)
                os.wait()
                return os.read(read, 1000).decode()
            if x == "loop":
                async def nested():
                    return [
                        self.attempt(lambda: self.other(1)),
                        self.attempt(lambda: self.other.map([1])),
                        self.attempt(lambda: self.other.stream(1)),
                        self.attempt(lambda: ls.gather(self.other.later(1))),
                        self.attempt(lambda: self.other.later(1).result()),
                        self.attempt(lambda: self.call("/other", 1)),
                    ]
                return asyncio.run(nested())
            if x == "late":
                def later():
                    gate()
                    say(self.attempt(lambda: self.other(1)))
                threading.Thread(target=later).start()
                return None
            if x == "values":
                return [
                    self.attempt(lambda: self.other({"a": [1, Strange()]})),
                    self.attempt(lambda: self.other.later(float("nan"))),
                    self.attempt(lambda: list(self.other.map([1], in_flight=0))),
                    self.attempt(lambda: ls.gather(3)),
                    self.attempt(lambda: self.call(3, 1)),
                    self.attempt(lambda: self.call("/other", 1, timeout=-1)),
                ]
"""
OUTSIDE = "call in a hook that requests pass, and in threads that such a hook waits for"


def test_misuse_is_refused_with_a_sentence(worker):
    server = worker(MISUSE, **CALLS)
    assert server.traits["calls"] == ["/other"]
    server.request(0, "dials")
    server.answer_call(server.next_call()[0], 1)
    assert server.answers(1) == {0: (200, 1)}
    assert server.measure(1)[0] == 200
    server.request(1, "said")
    none = f"RuntimeError: `self.other` is called where no request is computed; {OUTSIDE}"
    setup = (
        "RuntimeError: `setup` cannot call endpoints, which may not be ready before this worker is;"
        " call in a hook that requests pass"
    )
    assert server.answers(1) == {1: (200, [setup, none])}

    server.request(2, "forked")
    forked = (
        "RuntimeError: a process that a hook started cannot call endpoints; return its result to "
        "the hook, and call there"
    )
    assert server.answers(1) == {2: (200, "|".join([forked] * 3))}
    first, second = (server.next_call()[0] for _ in range(2))
    # The stream is dropped with its hook.
    assert server.receive("calls") == (frames.CANCEL, 0, 0, second, b"")
    server.answer_call(first, 1)

    server.request(3, "loop")
    blocks = "RuntimeError: `{}` blocks, and this thread runs an event loop; write `{}`"
    assert server.answers(1)[3][1] == [
        blocks.format("self.other(x)", "await self.other.acall(x)"),
        blocks.format("self.other.map(…)", "async for y in self.other.amap(…)"),
        blocks.format("self.other.stream(x)", "async for y in self.other.astream(x)"),
        blocks.format("ls.gather(a, b)", "await asyncio.gather(a, b)"),
        blocks.format("call.result()", "await call"),
        blocks.format("self.call(name, x)", "await self.acall(name, x)"),
    ]

    server.request(4, "values")
    assert server.answers(1)[4][1] == [
        'ValueError: the input of `self.other` cannot be sent: x["a"][1] is of type model.Strange; '
        "send values of JSON, bytes or numpy arrays of numbers",
        "ValueError: the input of `self.other` cannot be sent: x is NaN, which JSON does not have; "
        "send values of JSON, bytes or numpy arrays of numbers",
        "ValueError: invalid in_flight 0: expected an integer of at least 1",
        "TypeError: `gather` takes calls, as `later` returns them, not a int: "
        "`ls.gather(self.a.later(x), self.b.later(y))`",
        "ValueError: invalid endpoint 3: expected its path, such as `/ocr`, or its name; write "
        '`ls.endpoint("/ocr")`',
        "ValueError: invalid timeout -1 of an endpoint: expected a number of seconds above 0, or "
        "None for the rest of the caller's budget",
    ]

    server.request(5, "late")
    assert server.answers(1) == {5: (200, None)}
    server.open_gate()
    server.wait_for(none)
    assert server.end() == 0


def test_a_server_without_calls_is_named(worker):
    server = worker(FORMS)
    server.request(1, ["direct", 1])
    assert server.answers(1)[1][0] == 500
    server.wait_for("RuntimeError: this server takes no calls of hooks; update litplex")
    assert server.end() == 0


def test_a_thread_of_an_async_hook_without_its_context_is_refused(worker):
    server = worker(
        """
        class API(ls.LitAPI):
            other = ls.endpoint("/other")

            async def predict(self, x):
                loop = asyncio.get_running_loop()
                try:
                    return await loop.run_in_executor(None, self.other, x)
                except RuntimeError as error:
                    return str(error)
        """,
        **CALLS,
    )
    server.request(1, 1)
    server.welcome("calls")
    assert server.answers(1)[1][1] == (
        "`self.other` is called where no request is computed; call in a hook that requests pass "
        "and in its tasks; start threads with `asyncio.to_thread`, which keeps the request of the "
        "hook"
    )
    assert server.end() == 0


def test_a_call_whose_connection_ends_fails_and_the_next_one_dials_again(worker):
    server = worker(FORMS, **CALLS)
    server.request(1, ["caught", 1])
    server.next_call()
    server.socks.pop("calls").close()
    ((status, said),) = server.answers(1).values()
    assert (status, said[:3]) == (
        200,
        [503, "the connection for calls has ended: the server closed it", ["/other"]],
    )
    server.request(2, ["direct", 1])
    server.answer_call(server.next_call()[0], 2)
    assert server.answers(1) == {2: (200, 2)}
    assert server.end() == 0


def test_an_exception_of_a_signal_handler_ends_a_wait_and_no_other_call(worker):
    server = worker(
        """
        import signal

        class Over(Exception):
            pass

        def raise_over(*_):
            raise Over

        class API(ls.LitAPI):
            other = ls.endpoint("/other")

            def predict(self, x):
                signal.signal(signal.SIGALRM, raise_over)
                first = self.other.later("first")
                for _ in range(x):
                    signal.setitimer(signal.ITIMER_REAL, 0.01)
                    try:
                        self.other("interrupted")
                    except Over:
                        pass
                return first.result()
        """,
        **CALLS,
    )
    server.request(1, 20)
    first = server.next_call()[0]
    for _ in range(20):
        id = server.next_call()[0]
        assert server.receive("calls") == (frames.CANCEL, 0, 0, id, b"")
        server.answer_call(id, {"detail": "cancelled"}, 499)
    assert server.next_waiting() == first
    server.answer_call(first, "done")
    assert server.answers(1) == {1: (200, "done")}
    assert server.end() == 0


def test_plain_and_async_callers_share_the_connection(worker):
    server = worker(
        """
        import threading

        class API(ls.LitAPI):
            other = ls.endpoint("/other")

            def predict(self, x):
                got: list = []

                def call(n):
                    got.append(self.other(n))

                def call_async(n):
                    async def both():
                        return await asyncio.gather(*[self.other.acall(n + i) for i in range(3)])
                    got.extend(asyncio.run(both()))

                threads = [
                    threading.Thread(target=call if n % 2 else call_async, args=(n * 10,))
                    for n in range(8)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                return sorted(got)
        """,
        **CALLS,
    )
    expected = sorted(
        value for n in range(8) for value in ([n * 10] if n % 2 else range(n * 10, n * 10 + 3))
    )
    for id in range(1, 11):
        server.request(id, None)
        for _ in expected:
            call, _, value = server.next_call()
            server.answer_call(call, value)
        assert server.answers(1) == {id: (200, expected)}
    assert server.end() == 0


@KINDS
def test_a_hook_whose_calls_are_cancelled_knows_that_its_request_is(worker, kind):
    hooks = {
        "plain": """
            def predict(self, x, context):
                try:
                    return self.other(x)
                except ls.CallError as error:
                    say(f"{error.status} {context.cancelled}")
        """,
        "async": """
            async def predict(self, x, context):
                try:
                    return await self.other.acall(x)
                except BaseException as error:
                    say(f"{type(error).__name__} {context.cancelled}")
                    raise
        """,
    }
    server = worker(
        f"""
        class API(ls.LitAPI):
            other = ls.endpoint("/other")
        {hooks[kind]}
        """,
        **CALLS,
    )
    server.request(1, 1)
    id = server.next_call()[0]
    # The answer to the call overtakes the news that the client has left.
    server.answer_call(id, {"detail": "cancelled"}, 499)
    time.sleep(0.1)
    server.cancel(1)
    server.wait_for("499 True" if kind == "plain" else "CancelledError True")
    assert server.end() == 0


@KINDS
def test_a_callee_may_answer_with_the_status_of_a_cancelled_call(caller):
    caller.request(1, ["caught", 1])
    caller.answer_call(caller.next_call()[0], {"detail": "gone", "calls": ["/a", "/other"]}, 499)
    text = "/a → /other failed with 499: gone"
    assert caller.answers(1) == {1: (200, [499, "gone", ["/a", "/other"], None, text])}
    assert caller.end() == 0
