"""The inputs of hooks, and the responses that their results become."""

import asyncio
import json

import httpx
import pytest

ECHO = """
    class Echo(ls.LitAPI):
        def predict(self, x):
            if isinstance(x, bytes):
                return {"bytes": len(x), "type": type(x).__name__}
            if isinstance(x, ls.Form):
                describe = lambda v: v if isinstance(v, str) else [
                    v.filename, v.content_type, v.size, v.read(3).decode("latin-1"), len(v.read())]
                return {name: [describe(v) for v in x.getlist(name)] for name in x}
            return x

    ls.LitServer(Echo(), path="/echo").run(port=0)
"""


def test_json_goes_in_and_comes_out(serve):
    server = serve(ECHO)
    values: list = [{"a": [1, 2.5, None, "ß"]}, [], "text", 4, None, {"big": "x" * 3_000_000}]
    for value in values:
        response = server.post("/echo", content=json.dumps(value))
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.json() == value
    for name in ("application/vnd.api+json", "text/json; charset=utf-8", "Application/X-JSON"):
        response = server.post("/echo", content=b"[1]", headers={"Content-Type": name})
        assert response.json() == [1], name


def test_bodies_that_are_not_json(serve):
    server = serve(ECHO)
    raw = server.post("/echo", content=b"\xff" * 70_000, headers={"Content-Type": "image/png"})
    assert raw.json() == {"bytes": 70_000, "type": "bytes"}
    form = server.post(
        "/echo",
        data={"page": "2"},
        files=[
            ("image", ("größe.png", b"\x89PNG...", "image/png")),
            ("image", ("b.bin", b"x" * 200_000, None)),
        ],
    )
    assert form.json() == {
        "page": ["2"],
        "image": [
            ["größe.png", "image/png", 7, "\x89PN", 4],
            ["b.bin", "application/octet-stream", 200_000, "xxx", 199_997],
        ],
    }
    fields = server.post("/echo", data={"a": "1 & 2", "b": "ß"})
    assert fields.json() == {"a": ["1 & 2"], "b": ["ß"]}


def test_responses_of_every_kind(serve):
    server = serve("""
        class Kinds(ls.LitAPI):
            def predict(self, kind):
                return {
                    "bytes": b"\\x00\\xff",
                    "html": ls.Response("<p>ß</p>", 201, {"X-A": "1"}, "text/html; charset=utf-8"),
                    "empty": ls.Response(b"", status_code=204),
                    "number": 1.5,
                    "none": None,
                    "text": "text",
                    "set": {1},
                }[kind]

        ls.LitServer(Kinds()).run(port=0)
    """)

    def get(kind):
        response = server.post("/predict", json=kind)
        return response.status_code, response.headers.get("content-type"), response.content

    assert get("bytes") == (200, "application/octet-stream", b"\x00\xff")
    assert get("html") == (201, "text/html; charset=utf-8", "<p>ß</p>".encode())
    assert server.post("/predict", json="html").headers["x-a"] == "1"
    assert get("empty")[0] == 204
    assert get("number") == (200, "application/json", b"1.5")
    assert get("none") == (200, "application/json", b"null")
    assert get("text") == (200, "application/json", b'"text"')
    assert get("set") == (200, "application/json", b"[1]")


@pytest.mark.parametrize(
    ("request_args", "status", "says"),
    [
        ({"content": b'{"a": '}, 400, "line 1 column 7"),
        ({"content": b"\xff\xfe"}, 400, "not UTF-8"),
        (
            {"content": b"{}", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
            415,
            "Content-Type: application/json",
        ),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "malformed form",
        ),
        ({"content": b"x" * 1001}, 413, "1000 bytes"),
        ({"content": (b"x" * 600 for _ in range(2))}, 413, "1000 bytes"),
        ({"json": "teapot"}, 418, "short and stout"),
        ({"json": "crash"}, 500, "Internal server error"),
        ({"json": "unsendable"}, 500, "Internal server error"),
        ({"json": "slow"}, 504, "timed out"),
    ],
)
def test_errors_have_their_status_and_a_reason(serve, request_args, status, says):
    server = serve("""
        import time

        class Fails(ls.LitAPI):
            def predict(self, x):
                if x == "teapot":
                    raise ls.HTTPException(418, "short and stout", {"X-Tea": "yes"})
                if x == "crash":
                    raise RuntimeError("the secret cause")
                if x == "slow":
                    time.sleep(1)
                return object()

        ls.LitServer(Fails(), timeout=0.3, max_body_bytes=1000).run(port=0)
    """)
    response = server.post("/predict", **request_args)
    assert response.status_code == status
    assert says in response.json()["detail"]
    assert "secret" not in response.text
    if status == 418:
        assert response.headers["x-tea"] == "yes"
    if request_args.get("json") == "crash":
        server.wait_for_line(r"/predict#0 \| RuntimeError: the secret cause")


def test_no_answer_and_no_error_ends_the_worker(serve):
    server = serve("""
        import sys

        class Hostile(ls.LitAPI):
            def predict(self, x):
                if x == "exit":
                    sys.exit(3)
                if x == "detail":
                    raise ls.HTTPException(422, object())
                if x == "headers":
                    raise ls.HTTPException(422, "no", ["not", "pairs"])
                if x == "error status":
                    raise ls.HTTPException(70000)
                if x == "status":
                    return ls.Response(b"", status_code="404")
                if isinstance(x, dict):
                    raise ls.HTTPException(422, x["text"])
                return ls.Response(b"<svg/>", headers={"Content-Type": "image/svg+xml"})

        ls.LitServer(Hostile()).run(port=0)
    """)
    for x in ("exit", "detail", "headers", "error status", "status"):
        assert server.post("/predict", json=x).status_code == 500, x
    surrogate = server.post("/predict", content=rb'{"text": "\ud800"}')
    assert surrogate.status_code == 400
    good = server.post("/predict", json="good")
    assert good.headers.get_list("content-type") == ["image/svg+xml"]


def test_paths_and_methods(serve):
    server = serve(ECHO)
    assert server.client.get("/echo").status_code == 405
    assert server.client.get("/echo").headers["allow"] == "POST"
    assert server.client.post("/health").status_code == 405
    assert server.client.get("/nothing").json() == {"detail": "there is no endpoint `/nothing`"}
    assert server.client.get("/health").text == "ok"
    assert "POST /echo" in server.client.get("/").text
    assert "GET /docs" in server.client.get("/").text
    info = server.client.get("/info").json()
    assert [endpoint["path"] for endpoint in info["endpoints"]] == ["/echo"]


def test_context_has_the_facts_of_the_request_and_is_shared_by_its_hooks(serve):
    server = serve("""
        class Contextual(ls.LitAPI):
            def decode_request(self, request, context):
                context["seen"] = request
                return request
            def predict(self, xs, context):
                return [[x, c["seen"], c.headers["x-id"], c.query] for x, c in zip(xs, context)]
            def encode_response(self, output, context):
                return output + [context["seen"], 0 < context.remaining <= 30]

        ls.LitServer(Contextual(max_batch_size=4, batch_timeout=0.05)).run(port=0)
    """)

    async def calls():
        async with httpx.AsyncClient(base_url=server.url) as client:
            return await asyncio.gather(
                *(
                    client.post(f"/predict?q={n}", json=n, headers={"X-Id": f"i{n}"})
                    for n in range(8)
                )
            )

    answers = [response.json() for response in asyncio.run(calls())]
    assert answers == [[n, n, f"i{n}", f"q={n}", n, True] for n in range(8)]


def test_http2_with_prior_knowledge(serve):
    server = serve(ECHO)
    with httpx.Client(base_url=server.url, http1=False, http2=True) as client:
        response = client.post("/echo", json=[1])
    assert (response.http_version, response.json()) == ("HTTP/2", [1])


def test_batches_are_formed_and_one_bad_item_fails_alone(serve):
    server = serve("""
        class Batched(ls.LitAPI):
            def decode_request(self, request):
                return request["x"]
            def predict(self, xs):
                return [ValueError("odd") if x == 3 else [x, len(xs)] for x in xs]
            def encode_response(self, output):
                if output[0] == 5:
                    raise ls.HTTPException(422, "five")
                return output

        ls.LitServer(Batched(max_batch_size=8, batch_timeout=0.3)).run(port=0)
    """)

    async def calls():
        bodies = [{"x": n} for n in range(7)] + [{"y": 1}]
        async with httpx.AsyncClient(base_url=server.url) as client:
            return await asyncio.gather(*(client.post("/predict", json=body) for body in bodies))

    responses = asyncio.run(calls())
    assert [r.status_code for r in responses] == [200, 200, 200, 500, 200, 422, 200, 500]
    assert responses[0].json() == [0, 7]


def test_a_batch_of_the_wrong_length_is_logged(serve):
    server = serve("""
        class Wrong(ls.LitAPI):
            def predict(self, xs):
                return [1, 2, 3]

        ls.LitServer(Wrong(max_batch_size=2)).run(port=0)
    """)
    assert server.post("/predict", json=1).status_code == 500
    server.wait_for_line("expected 1, got 3")
