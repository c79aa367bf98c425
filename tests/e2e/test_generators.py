"""Generators in `predict` and `encode_response`, and how they end."""

import contextlib
import json

import httpx

PIECES = """
    def pieces(x):
        if x == "raises first":
            raise ValueError("first")
        if x == "yields nothing":
            return
        yield {"n": 1}
        if x == "raises later":
            raise ValueError("later")
        if x == "refuses later":
            raise ls.HTTPException(418, "later")
        if x == "returns a value":
            return {"n": "returned"}
        yield {"n": 2}
"""

HOOKS = """
    async def async_pieces(x):
        for piece in pieces(x):
            yield piece

    class Sync(ls.LitAPI):
        def predict(self, x):
            return (yield from pieces(x))

    class Async(ls.LitAPI):
        async def predict(self, x):
            async for piece in async_pieces(x):
                yield piece

    class Encode(ls.LitAPI):
        def predict(self, x):
            yield x

        def encode_response(self, outputs):
            return (yield from pieces(next(iter(outputs))))

    class AsyncEncode(ls.LitAPI):
        async def predict(self, x):
            yield x

        async def encode_response(self, outputs):
            async for x in outputs:
                async for piece in async_pieces(x):
                    yield piece

    class Batch(ls.LitAPI):
        def predict(self, xs):
            runs = [pieces(x) for x in xs]
            while True:
                step = [next(run, ls.FINISHED) for run in runs]
                if step == [ls.FINISHED] * len(xs):
                    return ["returned"] * len(xs)
                yield step

    class AsyncBatch(Batch):
        async def predict(self, xs):
            for step in super().predict(xs):
                yield step

    # A function that returns a generator, and one that returns another value.
    class Returns(ls.LitAPI):
        def predict(self, x):
            return pieces(x)

    class ReturnsLater(ls.LitAPI):
        async def predict(self, x):
            return pieces(x)

    class EncodesByReturning(ls.LitAPI):
        def predict(self, x):
            return x

        def encode_response(self, x):
            return pieces(x)

    class ReturnsAsync(ls.LitAPI):
        def predict(self, x):
            return async_pieces(x)

    class MadeBySetup(ls.LitAPI):
        def __init__(self, name):
            super().__init__(stream=True)
            self.name = name

        def setup(self, device):
            made = {"iter": iter, "dict": dict, "str": str, "async": async_pieces}
            self.predict = made[self.name]

    streams = {
        "/sync": Sync(stream=True),
        "/async": Async(stream=True),
        "/encode": Encode(stream=True),
        "/async-encode": AsyncEncode(stream=True),
        "/batch": Batch(stream=True, max_batch_size=2),
        "/async-batch": AsyncBatch(stream=True, max_batch_size=2),
        "/made-iter": MadeBySetup("iter"),
        "/made-dict": MadeBySetup("dict"),
        "/made-str": MadeBySetup("str"),
        "/made-async": MadeBySetup("async"),
        "/returns": Returns(),
        "/returns-later": ReturnsLater(),
        "/encodes-by-returning": EncodesByReturning(),
        "/returns-async": ReturnsAsync(),
    }
    ls.run_servers(*(ls.LitServer(api, path=path) for path, api in streams.items()), port=0)
"""

CHAT = """
    class Chat(ls.LitAPI):
        def predict(self, request):
            for piece in pieces(request.messages[0].content):
                yield str(piece["n"])

    ls.LitServer(Chat(spec=ls.OpenAISpec())).run(port=0)
"""

INTERNAL = "Internal server error"

ENDS = {
    "yields": (200, [{"n": 1}, {"n": 2}], False),
    "yields nothing": (200, [], False),
    # As in Python: the return value of a generator is not one of its values.
    "returns a value": (200, [{"n": 1}], False),
    "raises first": (500, [{"detail": INTERNAL}], False),
    "raises later": (200, [{"n": 1}, {"error": {"status": 500, "detail": INTERNAL}}], True),
    "refuses later": (200, [{"n": 1}, {"error": {"status": 418, "detail": "later"}}], True),
}


def read(server, path, x):
    """Returns the status and the lines of an answer, and whether it broke off."""
    with server.client.stream("POST", path, json=x) as answer:
        text, is_broken = "", False
        try:
            for piece in answer.iter_text():
                text += piece
        except httpx.RemoteProtocolError:
            is_broken = True
    return answer.status_code, [json.loads(line) for line in text.splitlines()], is_broken


def test_each_end_of_a_generator_is_distinguished(serve):
    server = serve(PIECES + HOOKS)
    for path in ("/sync", "/async", "/encode", "/async-encode", "/batch", "/async-batch"):
        for x, end in ENDS.items():
            assert read(server, path, x) == end, (path, x)
    # A generator that is returned is sent as a list where nothing is streamed.
    both = [{"n": 1}, {"n": 2}]
    for path in ("/returns", "/returns-later", "/encodes-by-returning"):
        assert read(server, path, "yields") == (200, [both], False), path
    assert read(server, "/made-iter", [1, 2]) == (200, [1, 2], False)
    assert read(server, "/made-async", "yields") == (200, both, False)
    status, [error], _ = read(server, "/returns-async", "yields")
    assert (status, "answer is of type async_generator" in error["detail"]) == (500, True)
    server.wait_for_line(r"`ReturnsAsync.predict` .*; set stream=True to send what it yields")
    # The keys of a dict, or the letters of a text, are no stream.
    for path, not_streamed in [("/made-dict", {"a": 1}), ("/made-str", "abc")]:
        assert read(server, path, not_streamed) == (500, [{"detail": INTERNAL}], False), path
        kind = path.rpartition("-")[2]
        server.wait_for_line(f"`predict` returned a {kind}, and with stream=True it must yield")


def test_a_chat_ends_as_its_generator_does(serve):
    server = serve(PIECES + CHAT)

    def ask(x, stream):
        messages = [{"role": "user", "content": x}]
        body = {"model": "m", "messages": messages, "stream": stream}
        with server.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            text = ""
            with contextlib.suppress(httpx.RemoteProtocolError):
                for piece in answer.iter_text():
                    text += piece
        return answer.status_code, text

    for x, content in [("yields", "12"), ("yields nothing", ""), ("returns a value", "1")]:
        status, whole = ask(x, False)
        (choice,) = json.loads(whole)["choices"]
        assert (status, choice["message"]["content"]) == (200, content)
        events = ask(x, True)[1].split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in events[:-2]]
        assert "".join(delta.get("content") or "" for delta in deltas) == content
        assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
    for x in ("raises first", "raises later"):
        assert ask(x, False)[0] == 500
    assert ask("raises first", True)[0] == 500
    status, text = ask("raises later", True)
    assert (status, '"error"' in text, "[DONE]" in text) == (200, True, False)
