"""Endpoints that share a path and are told apart by the model that a request names."""

import gzip
import json
import re
import subprocess
import sys

import httpx
import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")

PROGRAM = """
    import json
    from fastapi import Header

    class Say(ls.LitAPI):
        def __init__(self, text, **options):
            super().__init__(**options)
            self.text = text

        def predict(self, request, context):
            yield f"{self.text} {request.messages[-1].content[:20]}"

    class Guarded(Say):
        def authorize(self, x_secret: str = Header("")):
            if x_secret != "of guarded":
                raise ls.HTTPException(403, "not for you")

    class Embed(ls.LitAPI):
        def __init__(self, size, **options):
            super().__init__(**options)
            self.size = size

        def predict(self, inputs):
            return [float(self.size)] * self.size

    def chat(text, model=Say, **options):
        return ls.LitServer(model(text, spec=ls.OpenAISpec()), name=text, **options)

    def embed(size, **options):
        return ls.LitServer(Embed(size, spec=ls.OpenAIEmbeddingSpec()), **options)

    olga = {"api_keys": {"olga": "env:OLGA"}}
    oscar = {"api_keys": {"oscar": "env:OSCAR", "olga": "env:OLGA"}}
    servers = [
        chat("acme/small", aliases=["small", "kleines Modell é"], default_model=True,
             max_body_bytes=10_000, **olga),
        chat("large", rate_limit="3/h", rate_burst=3, **oscar),
        chat("open"),
        embed(2, name="two", **olga),
        embed(3, aliases=["three"], **oscar),
    ]
    APP_HOST
    ls.run_servers(*servers, port=0, request_id=True)
"""
APP_HOST = """
    class Rewrite:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            headers = dict(scope.get("headers", ()))
            if b"x-path" in headers:
                scope = {**scope, "path": headers[b"x-path"].decode()}
            if b"x-model" in headers:
                await receive()
                body = {"model": headers[b"x-model"].decode(), "messages": [
                    {"role": "user", "content": "rewritten"}]}
                body = json.dumps(body).encode()
                names = (b"content-length",)
                kept = [h for h in scope["headers"] if h[0] not in names]
                scope = {**scope, "headers": [*kept, (b"content-length", b"%d" % len(body))]}
                async def receive():
                    return {"type": "http.request", "body": body, "more_body": False}
            await self.app(scope, receive, send)

    guarded = chat("guarded", Guarded)
    both = [Guarded("guarded", spec=ls.OpenAISpec(), api_path="/both/chat/completions"),
            Say("open", spec=ls.OpenAISpec(), api_path="/both/chat/completions")]
    servers += [guarded, ls.LitServer(both, middlewares=[Rewrite])]
    for server in servers[:-1]:
        server.app.add_middleware(Rewrite)
"""
ENV = {"OLGA": "key of olga", "OSCAR": "key of oscar"}
CHAT = "/v1/chat/completions"


@pytest.fixture(params=["", "app host"])
def kind(request):
    return request.param


@pytest.fixture
def server(serve, kind):
    return serve(PROGRAM.replace("    APP_HOST\n", APP_HOST if kind else ""), env=ENV)


@pytest.fixture
def client(server):
    """Returns a function that makes a client with the key of a holder."""
    clients = []

    def make(holder):
        clients.append(httpx.Client(timeout=30))
        key = ENV.get(holder.upper(), "wrong")
        url = f"{server.url}/v1"
        return openai.OpenAI(base_url=url, api_key=key, max_retries=0, http_client=clients[-1])

    yield make
    for each in clients:
        each.close()


def messages(text="hi"):
    return [{"role": "user", "content": text}]


def ask(server, model, holder="olga", path=CHAT, text="hi", **headers):
    """Returns the status and the text, or the error, of a chat."""
    body: dict = {"messages": messages(text)}
    if model is not None:
        body["model"] = model
    if holder is not None:
        headers["x_api_key"] = ENV.get(holder.upper(), "wrong")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = server.client.post(path, json=body, headers=named)
    told = response.json()
    if response.status_code == 200:
        return 200, told["choices"][0]["message"]["content"]
    return response.status_code, told["error"]["message"] if "error" in told else told["detail"]


def test_a_request_reaches_the_model_that_it_names(client, server):
    olga = client("olga")
    for model in ("acme/small", "small", "kleines Modell é"):
        answer = olga.chat.completions.create(model=model, messages=messages())
        assert (answer.choices[0].message.content, answer.model) == ("acme/small hi", model)
    stream = olga.chat.completions.create(model="large", messages=messages(), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "large hi"
    for model, size in (("two", 2), ("Embed", 3), ("three", 3)):
        found = olga.embeddings.create(model=model, input="a", encoding_format="float")
        assert found.data[0].embedding == [float(size)] * size
    # The default of one path is not that of another.
    for unnamed in (None, ""):
        assert ask(server, unnamed) == (200, "acme/small hi")
    refused = server.client.post(
        "/v1/embeddings", json={"input": "a"}, headers={"X-API-Key": ENV["OLGA"]}
    )
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == "model"
    assert "it is missing; there are `Embed`, `two`" in refused.json()["detail"]


def test_an_unknown_model_is_told_in_the_words_of_the_api(client):
    olga = client("olga")
    for call in (
        lambda: olga.chat.completions.create(model="gpt-9", messages=messages()),
        lambda: olga.models.retrieve("gpt-9"),
    ):
        with pytest.raises(openai.NotFoundError) as raised:
            call()
        error = raised.value
        assert (error.code, error.type) == ("model_not_found", "invalid_request_error")
        assert "The model `gpt-9` does not exist or you do not have access to it" in error.message
        assert "`acme/small`" in error.message and "`large`" in error.message
    # Names of another path are none of this one.
    with pytest.raises(openai.NotFoundError, match="there are `Embed`, `two`"):
        olga.embeddings.create(model="large", input="a")


def test_a_key_reaches_the_models_that_it_is_for(client, server):
    oscar = client("oscar")
    names = {model.id for model in oscar.models.list()}
    assert {"large", "open", "Embed"} <= names and not {"acme/small", "two"} & names
    for model in ("acme/small", "small"):
        with pytest.raises(openai.NotFoundError) as raised:
            oscar.chat.completions.create(model=model, messages=messages())
        assert raised.value.code == "model_not_found"
        assert "`acme/small`" not in raised.value.message.partition("; ")[2]
    # The default is no way around it.
    assert ask(server, None, "oscar")[0] == 422
    assert ask(server, "large", "oscar") == (200, "large hi")
    for holder in (None, "stranger"):
        assert ask(server, "open", holder) == (200, "open hi")
        for model in ("acme/small", "large"):
            status, text = ask(server, model, holder)
            assert (status, "`large`, " in text) == (404, False)
        refused = server.client.post("/v1/embeddings", json={"input": "a", "model": "two"})
        assert refused.status_code == 401, "no model of this path is for every caller"


def test_limits_are_those_of_the_model(server):
    assert ask(server, "small", text="a" * 9_000)[0] == 200
    status, text = ask(server, "small", text="a" * 11_000)
    assert (status, "larger than 10000 bytes" in text) == (413, True)
    assert ask(server, "open", text="a" * 3_000_000)[0] == 200
    statuses = [ask(server, "large", "oscar")[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    # Another holder has requests of its own, and another model is not limited.
    assert ask(server, "large", "olga")[0] == 200
    assert ask(server, "open", "oscar")[0] == 200
    response = server.client.post(
        CHAT, json={"model": "large", "messages": messages()}, headers={"X-API-Key": ENV["OLGA"]}
    )
    assert response.headers["ratelimit-remaining"] == "1"


def test_bodies_are_read_as_elsewhere(server):
    body = json.dumps({"messages": messages(), "model": "open"}, ensure_ascii=False)

    def send(content, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = server.client.post(CHAT, content=content, headers=named)
        told = response.json()
        if response.status_code == 200:
            return told["choices"][0]["message"]["content"]
        assert told["error"]["message"] == told["detail"]
        return response.status_code

    assert send(body) == "open hi"
    assert send(gzip.compress(body.encode()), content_encoding="gzip") == "open hi"
    assert send(body.encode("utf-16")) == "open hi"
    assert send([body[:7].encode(), body[7:].encode()]) == "open hi"
    twice = body.replace("{", '{"model": "small", ', 1)
    assert send(twice) == "open hi", "the last field counts, as for the model"
    assert send(body.replace('"model"', '"mod\\u0065l"')) == "open hi"
    for wrong, status in (
        ("{", 400),
        ("", 400),
        ("[]", 422),
        ('{"model": 7}', 422),
        ('{"model": "open"}', 422),
    ):
        assert send(wrong) == status, wrong
    assert send(body, content_type="application/x-www-form-urlencoded") == 415
    assert send(body, content_encoding="x-none") == 415
    assert send(body, x_request_timeout="soon") == 400
    assert server.client.get(CHAT).status_code == 405
    metrics = server.client.get("/metrics").text
    assert "litplex_buffered_body_bytes 0\n" in metrics, "no memory is held after the responses"


def test_what_is_measured_and_shown_has_the_name_of_the_model(server, kind):
    for model in ("small", "open", "none"):
        ask(server, model)
    metrics = server.client.get("/metrics").text
    counted = dict(
        re.findall(r'litplex_requests_total{code="\d+",endpoint="([^"]+)".*} (\d+)', metrics)
    )
    assert (counted["acme/small"], counted["open"]) == ("1", "1")
    assert "/v1/chat/completions" not in counted
    running = re.findall(r'litplex_requests_in_flight{endpoint="([^"]+)"} (\d+)', metrics)
    assert all(value == "0" for label, value in running if label != "_other")
    info = server.client.get("/info").json()
    assert {"acme/small", "large", "open"} <= {endpoint["name"] for endpoint in info["endpoints"]}
    rows = [row for row in info["routes"] if row["path"] == CHAT and "POST" in row["methods"]]
    assert {"acme/small", "large", "open"} <= {row["model"] for row in rows}
    paths = server.client.get("/openapi.json").json()["paths"]
    assert "post" in paths[CHAT]


@pytest.mark.parametrize("kind", ["app host"])
def test_code_in_front_of_the_models_opens_none(server):
    """A middleware may change the body and the path; the request stays one to its model."""
    assert ask(server, "open", x_model="acme/small") == (200, "open rewritten")
    assert ask(server, "open", None, x_model="acme/small") == (200, "open rewritten")
    for path in ("/v1/embeddings", "/both/chat/completions", "/nothing"):
        assert ask(server, "open", None, x_path=path)[0] == 404
    for path in ("/nothing", "/both/chat/completions"):
        assert ask(server, "Say", None, path=path, x_path=CHAT)[0] == 404
    # Each model has its own `authorize`, also beside others of the same server.
    both = "/both/chat/completions"
    for path, guarded, free in ((CHAT, "guarded", "open"), (both, "Guarded", "Say")):
        assert ask(server, free, None, path=path) == (200, "open hi")
        assert ask(server, guarded, None, path=path) == (403, "not for you")
        right = {"x_secret": "of guarded"}
        assert ask(server, guarded, None, path=path, **right) == (200, "guarded hi")
        assert ask(server, free, None, path=path, x_model=guarded) == (200, "open rewritten")
    # What the server says to the app, a client cannot.
    forged = {"x_litplex_admission": "endpoint-0", "x_litplex_endpoint": "acme%2Fsmall"}
    assert ask(server, "open", None, **forged) == (200, "open hi")
    assert ask(server, "guarded", None, x_litplex_endpoint="open") == (403, "not for you")


CLASHES = """
    class Say(ls.LitAPI):
        def predict(self, request):
            yield "a"

    def chat(**options):
        return ls.LitServer(Say(spec=ls.OpenAISpec()), **options)

    class Plain(ls.LitAPI):
        def predict(self, x):
            return x

    for servers in (
        [chat(), chat()],
        [chat(name="a"), chat(name="a")],
        [chat(name="a"), chat(aliases=["b", "a"])],
        [chat(name="a", default_model=True), chat(name="b", default_model=True)],
        [chat(name="a"), chat(name="b"), ls.LitServer(Plain(), name="b")],
        [ls.LitServer(Plain()), ls.LitServer(Plain())],
    ):
        try:
            ls.run_servers(*servers, port=0)
        except ValueError as error:
            print("refused:", error)
    try:
        ls.LitServer([Say(spec=ls.OpenAISpec()), Plain()], name="a")
    except ValueError as error:
        print("refused:", error)
"""


GUARDED_BY_APP_HOST = """
    class Say(ls.LitAPI):
        def predict(self, request):
            yield "said"

    servers = [ls.LitServer(Say(spec=ls.OpenAISpec()), name=name) for name in ("a", "b")]
    @servers[0].app.get("/own")
    def own():
        return "own"
    ls.run_servers(*servers, port=0)
"""


def test_names_are_told_to_those_who_have_the_key_of_the_server(serve):
    server = serve(GUARDED_BY_APP_HOST, env={"LIT_SERVER_API_KEY": "key"})
    for model in ("a", "b"):
        assert ask(server, model, None)[0] == 401
        assert ask(server, model, None, x_api_key="key") == (200, "said")
    for unknown in ("none", None):
        status, text = ask(server, unknown, None)
        assert (status, "`a`" in text) == (401, False)
    assert "there are `a`, `b`" in ask(server, "none", None, x_api_key="key")[1]


def test_clashes_are_refused_before_the_start(script):
    done = subprocess.run(
        [sys.executable, script(CLASHES)], capture_output=True, text=True, timeout=60, check=True
    )
    out = done.stdout
    refused = [line.removeprefix("refused: ") for line in out.splitlines()]
    path = "/v1/chat/completions"
    expected = [
        f"two endpoints at `{path}` are called `Say`; give each its own `name`",
        f"two endpoints at `{path}` are called `a`; give each its own `name`",
        f"two endpoints at `{path}` are called `a`; give each its own `name`, or remove the alias",
        f"endpoints `a` and `b` at `{path}` both have `default_model`; set it for one of them",
        f"endpoints `{path}` and `/predict` are both called `b`; give one of them another `name`",
        "api_path /predict is already in use by another endpoint: 2 endpoints have this path",
        f"endpoint `{path}`: `name` is for one API and there are 2; give each its own LitServer",
    ]
    assert len(refused) == len(expected), out
    for line, says in zip(refused, expected):
        assert line.startswith(says), line


CALLED = """
    class Say(ls.LitAPI):
        def predict(self, request):
            yield f"{request.model} {request.messages[-1].content}"

    class Embed(ls.LitAPI):
        def __init__(self, size, **options):
            super().__init__(**options)
            self.size = size

        def predict(self, inputs):
            return [float(self.size)] * self.size

    class Call(ls.LitAPI):
        chat = ls.endpoint("/v1/chat/completions")
        embed = ls.endpoint("/v1/embeddings")
        large = ls.endpoint("large")

        def predict(self, x):
            try:
                if "input" in x:
                    return len(self.embed(x)["data"][0]["embedding"])
                if x.pop("by_name", False):
                    return self.large(x)["choices"][0]["message"]["content"]
                if x.get("stream"):
                    items = self.chat.stream(x)
                    return "".join(it["choices"][0]["delta"].get("content", "") for it in items)
                return self.chat(x)["choices"][0]["message"]["content"]
            except ls.CallError as error:
                return [error.status, error.detail, error.calls]

    def chat(**options):
        return ls.LitServer(Say(spec=ls.OpenAISpec()), **options)

    def embed(size, **options):
        return ls.LitServer(Embed(size, spec=ls.OpenAIEmbeddingSpec()), **options)

    step = ls.step("/v1/chat/completions", input="$request")
    ls.run_servers(
        chat(name="acme/small", aliases=["small"], default_model=True), chat(name="large"),
        embed(2, name="two"), embed(3, name="three"),
        ls.LitServer(Call(), path="/call"),
        ls.LitServer(ls.Pipeline(step, ls.value("$response.choices[0].message.content")),
                     path="/pipe"),
        port=0,
    )
"""


def test_calls_of_a_shared_path_are_routed_by_the_model_in_the_value(serve):
    server = serve(CALLED)

    def call(path, **value):
        return server.post(path, json={"messages": messages(), **value})

    cases: list[tuple[dict, object]] = [
        ({"model": "large"}, "large hi"),
        ({"model": "acme/small"}, "acme/small hi"),
        ({"model": "small"}, "small hi"),
        ({"model": "large", "stream": True}, "large hi"),
        # A handle by name does not look at the model, which the callee repeats.
        ({"model": "small", "by_name": True}, "small hi"),
        ({"model": "two", "input": "hi"}, 2),
        ({"model": "three", "input": "hi"}, 3),
    ]
    for value, expected in cases:
        assert call("/call", **value).json() == expected, value
    assert call("/call").json().endswith(" hi")
    assert call("/pipe", model="large").json() == "large hi"
    assert call("/pipe", model="small").json() == "small hi"
    says = "The model `none` does not exist or you do not have access to it; there are "
    status, detail, calls = call("/call", model="none").json()
    assert (status, detail) == (404, says + "`acme/small`, `large`")
    assert calls == ["/call#0", "/v1/chat/completions"]
    assert call("/call", model=7).json()[:2] == [422, "model: expected a string, got number"]
    status, detail, _ = call("/call", input="hi").json()
    assert (status, detail) == (422, "model: it is missing; there are `two`, `three`")
    refused = call("/pipe", model="none")
    assert refused.status_code == 404
    assert says in refused.json()["detail"]
    metrics = server.client.get("/metrics").text
    for caller, callee, count in [
        ("/call", "large", 2),
        ("/call", "three", 1),
        ("/pipe", "large", 1),
        ("/pipe", "acme/small", 1),
    ]:
        labels = f'caller="{caller}",endpoint="{callee}",status="2xx"'
        found = re.search(rf"litplex_call_duration_seconds_count{{{labels}}} (\d+)", metrics)
        assert found and int(found[1]) >= count, (labels, metrics)
    unknown = 'litplex_call_duration_seconds_count{caller="/call",endpoint="_other",status="4xx"} 3'
    assert unknown in metrics
