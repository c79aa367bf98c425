"""Pipelines: endpoints whose graphs the server runs without a worker."""

import json
import re
import socket
import time
from pathlib import Path

import httpx
import pytest
from conftest import LITPLEX, Server, wait_until

ROOT = Path(__file__).parents[2]

# Models that note what they get, and pipelines of them: one server for all tests of this file that
# only send requests.
PROGRAM = """
    import time

    def note(text):
        with open("notes", "a") as file:
            file.write(text + "\\n")

    class Ocr(ls.LitAPI):
        def predict(self, image):
            return {"text": image["pixels"], "chunks": [image["pixels"], "b"], "score": 1.50}

    class Lang(ls.LitAPI):
        def predict(self, text):
            return {"code": "de" if "ü" in str(text) else "en"}

    class Embed(ls.LitAPI):
        def predict(self, texts):
            return [[float(len(text))] for text in texts]

    class Echo(ls.LitAPI):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def predict(self, x):
            note(f"{self.name} {x}")
            return {self.name: x}

    class Fails(ls.LitAPI):
        def predict(self, x):
            raise ls.HTTPException(418 if x == "teapot" else 503, "not today")

    class Bytes(ls.LitAPI):
        def decode_request(self, request):
            return bytes(request)

        def predict(self, body):
            return ls.Response(body[::-1], media_type="image/x-raw")

    class Tokens(ls.LitAPI):
        def predict(self, x):
            for n in range(3):
                yield {"n": n, "x": x}
                note(f"token {n}")
                if n < 2:
                    time.sleep(0.5)

    class Waits(ls.LitAPI):
        def predict(self, x, context):
            note(f"began {x}")
            deadline = time.monotonic() + 20
            while not context.cancelled and time.monotonic() < deadline:
                time.sleep(0.005)
            note(f"cancelled {x} {context.cancelled}")
            return x

    class Asks(ls.LitAPI):
        search = ls.endpoint("search")

        def predict(self, x):
            return {"asked": self.search(x)}

    class AsksFirst(ls.LitAPI):
        first = ls.endpoint("/first")

        def predict(self, x):
            return self.first(x)

    class AsksStream(ls.LitAPI):
        each = ls.endpoint("/each/nested")

        def predict(self, x):
            for item in self.each.stream(x):
                yield {"asked": item}

    class Tick(ls.LitAPI):
        def predict(self, x):
            if x == "bad":
                raise ls.HTTPException(422, "not this one")
            time.sleep(x)
            note(f"tick {x}")
            return {"n": x}

    class Chat(ls.LitAPI):
        def predict(self, request):
            for word in request.messages[-1].content.split():
                yield word + " "

    def chat(**more):
        messages = [{"role": "user", "content": "$request.q"}]
        return ls.step("/v1/chat/completions", input={"messages": messages, **more})

    PIPELINES = {
        "/chat": ls.Pipeline(chat(), ls.value("$response.choices[0].message.content")),
        "/chat/stream": ls.Pipeline("/x", chat(stream=True)),
        "/asked": ls.Pipeline("/asks", {"again": "/x"}),
        "/search": ls.Pipeline(
            ls.step("/ocr", name="ocr", input="$request.image"),
            ls.parallel({
                "lang": ls.step("/lang", input="$ocr.text"),
                "vectors": ls.map("/embed", over="$ocr.chunks"),
                "q": ls.value("$request.question"),
            }),
        ),
        "/switch": ls.Pipeline(
            ls.step("/lang", input="$request.text", name="lang"),
            ls.switch(
                {
                    "lang.code == 'de'": "/x",
                    "request.text.size() > 3": ls.step("/y", input="$request"),
                },
            ),
        ),
        "/split": ls.Pipeline(ls.splitter({"/x": 3, "/y": 1}, shadows={"/shadow": 1.0})),
        "/soft": ls.Pipeline({
            "a": ls.step("/fails", dependency="soft", default={"n": 1}),
            "b": "/x",
        }),
        "/slow": ls.Pipeline(ls.step("/waits", timeout=0.3, name="slow")),
        "/hard": ls.Pipeline({"a": "/fails", "b": "/waits"}),
        "/second": ls.Pipeline("/x", "/fails"),
        "/first": ls.Pipeline("/fails"),
        "/bytes": ls.Pipeline("/reverse", "/reverse", "/reverse"),
        "/stream": ls.Pipeline("/x", {"a": "/y", "b": "/x"}, ["/y", "/tokens"]),
        "/collect": ls.Pipeline("/tokens", "/x"),
        "/leave": ls.Pipeline("/y", "/inner"),
        "/inner": ls.Pipeline(ls.map({"a": "/waits", "b": "/waits"}, over="$request.y")),
        "/outer": ls.Pipeline("search", ls.value({"inner": "$response"})),
        "/each": ls.Pipeline("/x", ls.map("/tick", over="$request.items", in_flight=2)),
        "/each/nested": ls.Pipeline("/x", ls.step("/each", input="$request")),
        "/asked/stream": ls.Pipeline(ls.step("/asks/stream")),
        "/mapped": ls.Pipeline(ls.map(ls.step("/fails", input="$item.x"))),
        "/form": ls.Pipeline(
            ls.step("/reverse", input="$request.image", name="image"),
            ls.switch({"request.lang == 'de'": ls.value("$image")}, otherwise="/x"),
        ),
        "/fails/deep": ls.Pipeline("/asks/first"),
    }

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Ocr(), path="/ocr"),
            ls.LitServer(Lang(), path="/lang"),
            ls.LitServer(Embed(), path="/embed", max_batch_size=8, batch_timeout=0.01),
            ls.LitServer(Echo("x"), path="/x"),
            ls.LitServer(Echo("y"), path="/y"),
            ls.LitServer(Echo("shadow"), path="/shadow"),
            ls.LitServer(Fails(), path="/fails"),
            ls.LitServer(Bytes(), path="/reverse"),
            ls.LitServer(Tokens(stream=True), path="/tokens"),
            ls.LitServer(Waits(), path="/waits", workers_per_device=4),
            ls.LitServer(Asks(), path="/asks"),
            ls.LitServer(AsksFirst(), path="/asks/first"),
            ls.LitServer(AsksStream(stream=True), path="/asks/stream"),
            ls.LitServer(Tick(), path="/tick"),
            ls.LitServer(Chat(spec=ls.OpenAISpec())),
            *(ls.LitServer(each, path=path) for path, each in PIPELINES.items()),
            port=0,
        )
"""


@pytest.fixture
def server(serve, tmp_path):
    server = serve(PROGRAM)

    def notes():
        file = tmp_path / "notes"
        return file.read_text().splitlines() if file.exists() else []

    server.notes = notes
    return server


def detail(response):
    return response.status_code, response.json()["detail"]


def metrics(server, step):
    text = server.client.get("/metrics").text
    found = re.findall(rf'litplex_step_seconds_count{{.*step="{step}".*}} (\d+)', text)
    return sum(map(int, found))


def answers_of_every_kind(server):
    request = {"image": {"pixels": "grün"}, "question": 1.0}
    search = {"lang": {"code": "de"}, "vectors": [[4.0], [1.0]], "q": 1.0}
    response = server.post("/search", json=request)
    assert response.json() == search
    assert '"q":1.0' in response.text.replace(" ", ""), "numbers are as the client wrote them"
    assert server.post("/outer", json=request).json() == {"inner": search}
    assert server.post("/switch", json={"text": "ü"}).json() == {"x": {"code": "de"}}
    assert server.post("/switch", json={"text": "long"}).json() == {"y": {"text": "long"}}
    unmatched = detail(server.post("/switch", json={"text": "a"}))
    assert unmatched[0] == 500
    assert "`lang.code == 'de'`, `request.text.size() > 3`" in unmatched[1]
    assert '`request` is {"text":"a"}' in unmatched[1]
    assert server.post("/soft", json=2).json() == {"a": {"n": 1}, "b": {"x": 2}}
    body = bytes(range(256))
    reversed_body = server.post("/bytes", content=body, headers={"content-type": "image/png"})
    assert reversed_body.content == body[::-1]
    assert reversed_body.headers["content-type"] == "image/x-raw"
    assert server.post("/asked", json=request).json() == {"again": {"x": {"asked": search}}}
    assert server.post("/chat", json={"q": "a b"}).json() == "a b "
    with server.client.stream("POST", "/chat/stream", json={"q": "a b"}) as response:
        chunks = [json.loads(line) for line in response.iter_lines()]
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(deltas) == "a b "
    tokens = [{"n": n, "x": 7} for n in range(3)]
    assert server.post("/collect", json=7).json() == {"x": tokens}
    assert metrics(server, "ocr") == 3


def splits_by_weight(server):
    answers = [server.post("/split", json=n).json() for n in range(60)]
    counts = [sum(name in answer for answer in answers) for name in "xy"]
    assert sum(counts) == 60
    assert counts[0] > counts[1] > 0
    shadows = lambda: sum(note.startswith("shadow") for note in server.notes())  # noqa: E731
    wait_until(lambda: shadows() == 60, lambda: f"{shadows()} shadows")


def errors_name_the_step(server):
    def count(note):
        return server.notes().count(note)

    assert detail(server.post("/first", json="teapot")) == (418, "step `/fails`: not today")
    assert detail(server.post("/second", json="teapot"))[0] == 503
    assert detail(server.post("/slow", json=1)) == (
        504,
        "step `slow` (/waits): no response within 300ms",
    )
    status, text = detail(server.post("/hard", json=1))
    assert (status, text) == (503, "step `a` (/fails): not today")
    assert detail(server.post("/search", json={"image": {}}))[0] == 500
    status, text = detail(server.post("/search", json={"question": 1}))
    assert (status, text) == (422, "step `ocr` (/ocr): `$request.image` is missing")
    assert detail(server.post("/search", content=b"{"))[0] == 400
    named = server.post("/second", json="teapot").json()
    assert (named["step"], named["calls"]) == ("/fails", ["/second", "/fails"])
    unnamed = server.post("/search", json={"question": 1}).json()
    assert (unnamed["step"], "calls" in unnamed) == ("ocr", False)
    deep = server.post("/fails/deep", json=1).json()
    assert deep["calls"] == ["/fails/deep", "/asks/first#0", "/first", "/fails"]
    assert detail(server.post("/mapped", json=[{"x": "teapot"}])) == (
        418,
        "step `/fails`, item [0] of `map`: not today",
    )
    _, text = detail(server.post("/mapped", json=[{"x": 1}, {}]))
    assert text == "step `/fails`, item [1] of `map`: `$item.x` is missing"
    # Workers of steps that were given up are free again. The other step of the failed parallel may
    # have been given up before it began.
    wait_until(lambda: count("cancelled 1 True") == count("began 1") >= 1, server.notes)


def streams_pass_through(server):
    began = time.monotonic()
    times, lines = [], []
    with server.client.stream("POST", "/stream", json=1) as response:
        assert response.headers["content-type"].startswith("application/x-ndjson")
        for line in response.iter_lines():
            times.append(time.monotonic() - began)
            lines.append(json.loads(line)["n"])
    assert lines == [0, 1, 2]
    # Collected, they would arrive together, after the second pause.
    assert times[2] - times[0] > 0.5


def maps_stream_to_clients_that_ask(server):
    items = {"items": [0, 0.4, 0.4]}
    whole = [{"n": n} for n in items["items"]]
    response = server.post("/each", json=items)
    assert response.headers["content-type"] == "application/json"
    assert response.json() == whole
    for path, accept in [
        ("/each", "application/x-ndjson"),
        ("/each/nested", "text/event-stream"),
        ("/asked/stream", "application/x-ndjson"),
    ]:
        times, lines = [], []
        headers = {"accept": accept}
        with server.client.stream("POST", path, json=items, headers=headers) as response:
            assert response.headers["content-type"].startswith(accept)
            for line in response.iter_lines():
                if line:
                    times.append(time.monotonic())
                    item = json.loads(line.removeprefix("data: "))
                    lines.append(item.get("asked", item))
        assert lines == whole
        assert times[2] - times[0] > 0.5, "the items come one by one"
    headers = {"accept": "application/x-ndjson"}
    broken = []
    body = {"items": [0, "bad"]}
    with (
        pytest.raises(httpx.RemoteProtocolError),
        server.client.stream("POST", "/each", json=body, headers=headers) as response,
    ):
        for line in response.iter_lines():
            broken.append(json.loads(line))
    error = {"status": 422, "detail": "step `/tick`, item [1] of `map`: not this one"}
    assert broken == [{"n": 0}, {"error": error}]
    # A client that leaves ends the calls.
    before = len(server.notes())
    many = {"items": [0.05] * 200}
    with server.client.stream("POST", "/each", json=many, headers=headers) as response:
        next(response.iter_lines())
    time.sleep(0.5)
    assert len([note for note in server.notes()[before:] if note.startswith("tick")]) < 20


def forms_have_fields(server):
    files = {"image": ("a.png", b"\x00png", "image/png")}
    response = server.client.post("/form", data={"lang": "de"}, files=files)
    assert (response.headers["content-type"], response.content) == ("image/x-raw", b"gnp\x00")
    assert detail(server.client.post("/form", data={"lang": "de"})) == (
        422,
        "step `image` (/reverse): `$request.image`: the form has no field `image`",
    )


def a_client_that_leaves_cancels_all(server):
    def noted(word):
        return sorted(note for note in server.notes() if note.startswith(word))

    before = len(noted("began"))
    host, port = server.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    body = b"[11, 12]"
    head = f"POST /leave HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    wait_until(lambda: len(noted("began")) == before + 4, server.notes)
    client.close()
    cancelled = ["cancelled 11 True"] * 2 + ["cancelled 12 True"] * 2
    wait_until(lambda: noted("cancelled 1")[-4:] == cancelled, server.notes)


def pages_show_the_graph(server):
    info = {each["path"]: each for each in server.client.get("/info").json()["endpoints"]}
    assert info["/search"]["kind"] == "pipeline"
    assert info["/search"]["workers"] == 0
    step = {"call": "/ocr", "name": "ocr", "input": "$request.image"}
    assert info["/search"]["pipeline"][0] == step
    assert "pipeline" not in info["/ocr"]
    operation = server.client.get("/openapi.json").json()["paths"]["/search"]["post"]
    assert "├─ ocr: /ocr ← $request.image" in operation["description"]


def test_pipelines_run_in_the_server(server):
    answers_of_every_kind(server)
    splits_by_weight(server)
    errors_name_the_step(server)
    streams_pass_through(server)
    maps_stream_to_clients_that_ask(server)
    forms_have_fields(server)
    a_client_that_leaves_cancels_all(server)
    pages_show_the_graph(server)


TOML = """
port = 0
[[endpoint]]
path = "/ocr"
name = "ocr"
api = "models.py:Ocr"

[[endpoint]]
path = "/search"
name = "search"
timeout = 5
max_body_bytes = 100
PIPELINE
"""

STEPS = """
[[endpoint.pipeline]]
name = "text"
call = "ocr"
input = "$request.image"

[[endpoint.pipeline]]
parallel = { again = { call = "/ocr", input = "$text" }, q = { value = "$request.q" } }
"""

MODELS = """
import litplex as ls

class Ocr(ls.LitAPI):
    def predict(self, image):
        return {"of": image}
"""


@pytest.fixture
def toml(tmp_path):
    (tmp_path / "models.py").write_text(MODELS)

    def write(pipeline):
        (tmp_path / "litplex.toml").write_text(TOML.replace("PIPELINE", pipeline))
        return tmp_path / "litplex.toml"

    return write


def test_a_pipeline_in_toml(toml, run, litplex, runtime):
    file = toml(STEPS)
    _, shown, _ = litplex("check", file)
    tree = ["├─ text: ocr ← $request.image", "└─ parallel", "   ├─ again: /ocr ← $text"]
    assert "\n".join(f"    {line}" for line in tree) in shown
    assert "workers_per_device" not in shown.split("POST /search")[1]
    assert "\n  /search → /ocr (step text, again)\n" in shown
    server = run([LITPLEX, "serve", file], kind=Server, env=runtime).wait_until_ready()
    edge = {"from": "/search", "to": "/ocr", "kind": "step", "steps": ["text", "again"]}
    assert server.client.get("/info").json()["graph"]["edges"] == [edge]
    answer = server.post("/search", json={"image": 1, "q": 2}).json()
    assert answer == {"again": {"of": {"of": 1}}, "q": 2}
    assert server.post("/search", json={"image": "x" * 100}).status_code == 413
    _, servers, _ = litplex("ps", "--json")
    endpoint = json.loads(servers)["endpoints"][1]
    assert (endpoint["kind"], endpoint["requests"], endpoint["workers"]) == ("pipeline", 2, [])
    status, _, errors = litplex("scale", "search", "2")
    assert status == 1
    assert "`search` is a pipeline, which has no workers" in errors


def test_the_example_is_a_pipeline(litplex):
    status, shown, errors = litplex("check", ROOT / "examples" / "pipeline.toml")
    assert status == 0, errors
    assert "   └─ vectors: map over $lines, soft: null" in shown


@pytest.mark.parametrize(
    ("pipeline", "error"),
    [
        (
            'pipeline = ["/oc"]',
            'pipeline of /search: steps[0]: unknown endpoint "/oc"; did you mean "',
        ),
        (
            'pipeline = ["/search"]',
            "pipeline of /search: a pipeline must not call itself: /search → /search",
        ),
        (
            'pipeline = [{ switch = ["/ocr", { when = "request.a", call = "/ocr" }] }]',
            "steps[0].switch[1]: the branch is never reached, because branch [0] is always taken",
        ),
        (
            'pipeline = [{ switch = [{ when = "reqest.a > 1", call = "/ocr" }] }]',
            "no step before it has the name `reqest`",
        ),
        ('pipeline = ["/ocr"]\nmax_batch_size = 4', "`max_batch_size` applies to endpoints with"),
        ('pipeline = ["/ocr"]\napi = "models.py:Ocr"', "has `pipeline` or `api`, not both"),
    ],
)
def test_errors_in_pipelines_are_told_at_the_start(toml, litplex, pipeline, error):
    for command in ("check", "serve"):
        status, _, errors = litplex(command, toml(pipeline))
        assert status == 2
        assert error in errors


def test_programs_are_told_of_errors_in_pipelines(serve):
    server = serve(
        """
        class A(ls.LitAPI):
            def predict(self, x):
                return x

        if __name__ == "__main__":
            ls.run_servers(
                ls.LitServer(A(), path="/a"),
                ls.LitServer(ls.Pipeline({"b": "/b"}), path="/p", workers_per_device=2),
                port=0,
            )
        """,
        ready=False,
    )
    assert server.wait() == 2
    assert "endpoint `/p`: `workers_per_device` applies to endpoints with workers" in server.output
    assert 'pipeline of /p: steps[0].parallel.b: unknown endpoint "/b"' in server.output


def test_an_inference_graph_is_imported(litplex, tmp_path):
    (tmp_path / "graph.yaml").write_text(
        """
apiVersion: serving.kserve.io/v1alpha1
kind: InferenceGraph
metadata: {name: pets}
spec:
  nodes:
    root:
      routerType: Switch
      steps:
        - {serviceName: cats, condition: "[@this].#(animal==\\"cat\\")"}
        - {serviceName: dogs, condition: dog}
"""
    )
    _, shown, _ = litplex("import", tmp_path / "graph.yaml")
    assert 'path = "/pets"' in shown
    assert 'when = "has(response.dog)"' in shown
    (tmp_path / "graph.yaml").write_text("kind: Pod")
    status, _, errors = litplex("import", tmp_path / "graph.yaml")
    assert status == 2
    assert "graph.yaml: expected a document of kind `InferenceGraph`, got kind `Pod`" in errors


TYPED = """
import litplex as ls

class Page(ls.LitAPI):
    def predict(self, image) -> dict[str, int]:
        return {"n": 1}

    def encode_response(self, output) -> list[int]:
        return [1]

    def setup(self, device):
        raise RuntimeError("a check must not load it")

class Text(ls.LitAPI):
    def decode_request(self, request: dict[str, int]):
        return request

    def predict(self, text):
        return text
"""


def test_types_are_checked_before_models_are_loaded(litplex, tmp_path):
    (tmp_path / "models.py").write_text(TYPED)
    program = """
[[endpoint]]
path = "/page"
api = "models.py:Page"
[[endpoint]]
path = "/text"
api = "models.py:Text"
[[endpoint]]
path = "/search"
pipeline = ["/page", STEP]
"""
    file = tmp_path / "litplex.toml"
    file.write_text(program.replace("STEP", '{ call = "/text", input = "$response[0].name" }'))
    status, _, errors = litplex("check", file)
    assert status == 2
    assert "pipeline of /search: steps[1]: `$response[0].name`: the value is a number" in errors
    file.write_text(program.replace("STEP", '"/text"'))
    status, _, errors = litplex("check", file)
    assert status == 2
    assert "steps[1]: `$response` is an array, not an object; /text takes it" in errors
    file.write_text(program.replace("STEP", '{ map = "/page", over = "$response" }'))
    assert litplex("check", file)[0] == 0
