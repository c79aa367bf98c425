"""The OpenAPI document of the endpoints, and the page that shows it."""

import re
import sys
from urllib.parse import urljoin, urlsplit

import pytest

SMALL = """
    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    ls.LitServer(Echo(), path="/echo").run(port=0)
"""
# What the policy of the page allows besides the server itself.
INLINE = {"'unsafe-inline'", "data:", "blob:"}


def wants_of(page):
    """Returns the addresses that a browser loads for a page."""
    return re.findall(r'(?:src|href)="([^"]+)"', page)


def test_the_page_and_all_that_it_loads_come_from_the_server(serve):
    server = serve(SMALL)
    for path in ("/docs", "/redoc"):
        page = server.client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        wanted = wants_of(page.text)
        assert {"docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"} <= set(wanted)
        for address in wanted:
            assert not urlsplit(address).netloc, address
            file = server.client.get(urljoin(path, address))
            assert file.status_code == 200, address
            assert file.headers.get("content-encoding") == "gzip" or "start.js" in address
    style = server.client.get("/docs/swagger-ui.css").text
    assert ".swagger-ui" in style
    loaded = re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')]*)", style)
    assert all(address.startswith("data:") for address in loaded), loaded
    start = server.client.get("/docs/start.js").text
    assert 'url: "openapi.json"' in start
    assert "http" not in start
    assert "SwaggerUIBundle" in server.client.get("/docs/swagger-ui-bundle.js").text


def test_the_page_forbids_a_browser_to_load_from_elsewhere(serve):
    policy = serve(SMALL).client.get("/docs").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("base-uri") == rules.pop("object-src") == "'none'"
    assert rules.pop("frame-ancestors") == "'none'"
    assert rules["default-src"] == "'self'"
    assert "script-src" not in rules
    for rule, sources in rules.items():
        assert set(sources.split()) - INLINE == {"'self'"}, rule


def test_clients_that_cannot_unpack_get_it_unpacked(serve):
    client = serve(SMALL).client
    for path in ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/favicon-32x32.png"):
        plain = client.get(path, headers={"Accept-Encoding": "identity"})
        packed = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in plain.headers
        assert (packed.headers["content-encoding"], packed.headers["vary"]) == (
            "gzip",
            "Accept-Encoding",
        )
        assert plain.content == packed.content != b""
        head = client.head(path, headers={"Accept-Encoding": "identity"})
        assert int(head.headers["content-length"]) == len(plain.content)


def test_without_openapi_the_page_does_not_exist(serve):
    client = serve(SMALL.replace("port=0", "port=0, openapi=False")).client
    for path in ("/openapi.json", "/docs", "/redoc", "/docs/start.js", "/docs/swagger-ui.css"):
        assert client.get(path).status_code == 404


EVERY_KIND = """
    from dataclasses import dataclass
    from typing import Generic, List, Optional, TypeVar

    from pydantic import BaseModel

    T = TypeVar("T")


    class Item(BaseModel):
        name: str
        price: float
        tags: List[str] = []
        note: Optional[str] = None


    class Node(BaseModel):
        children: List["Node"] = []


    class Page(BaseModel, Generic[T]):
        items: List[T]


    def make_other_item():
        class Item(BaseModel):
            weight: float

        return Item


    OtherItem = make_other_item()


    class Typed(ls.LitAPI):
        '''Adds up.

        Tags count too.'''

        def decode_request(self, request: Item):
            return request

        def predict(self, item):
            return len(item.name) + len(item.tags)

        def encode_response(self, output) -> Page[int]:
            return Page(items=[output])


    class Weigh(ls.LitAPI):
        def decode_request(self, request: List[OtherItem]):
            return request

        def predict(self, items):
            return [item.weight for item in items]


    class Tree(ls.LitAPI):
        def decode_request(self, request: Node):
            return request

        def predict(self, node):
            return len(node.children)


    class Upload(ls.LitAPI):
        def decode_request(self, request: ls.UploadFile):
            return request

        def predict(self, file):
            return len(file.read())


    class Echo(ls.LitAPI):
        def predict(self, x):
            return x


    class Exemplary(ls.LitAPI):
        request_example = {"x": [1, 2]}
        response_example = {"kind": "dict"}

        def predict(self, x):
            return {"kind": type(x).__name__}


    class Count(ls.LitAPI):
        def predict(self, x):
            yield from range(3)


    class Chat(ls.LitAPI):
        def predict(self, request):
            yield "hello"


    class Embed(ls.LitAPI):
        def predict(self, texts):
            return [[0.1, 0.2] for _ in (texts if isinstance(texts, list) else [texts])]


    ls.run_servers(
        ls.LitServer(Typed(), path="/typed", api_keys={"ann": "env:ANN"}),
        ls.LitServer(Weigh(), path="/weigh", rate_limit="1000000/s"),
        ls.LitServer(Tree(), path="/tree"),
        ls.LitServer(Upload(), path="/upload"),
        ls.LitServer(Echo(), path="/echo"),
        ls.LitServer(Exemplary(), path="/exemplary"),
        ls.LitServer(Count(stream=True), path="/count"),
        ls.LitServer(Chat(spec=ls.OpenAISpec())),
        ls.LitServer(Embed(spec=ls.OpenAIEmbeddingSpec())),
        port=0,
    )
"""


@pytest.fixture
def described(serve):
    return serve(EVERY_KIND, env={"ANN": "key of ann"})


def test_the_document_is_valid_and_describes_requests_and_responses(described):
    document = described.client.get("/openapi.json").json()
    validate = pytest.importorskip("openapi_spec_validator").OpenAPIV31SpecValidator
    assert [error.message for error in validate(document).iter_errors()] == []
    of = {path: methods["post"] for path, methods in document["paths"].items()}
    taken = {path: operation["requestBody"]["content"] for path, operation in of.items()}
    answered = {path: operation["responses"]["200"]["content"] for path, operation in of.items()}
    schemas = document["components"]["schemas"]

    def resolved(schema):
        return schemas[schema["$ref"].rpartition("/")[2]]

    assert (of["/typed"]["summary"], of["/typed"]["description"]) == ("Adds up.", "Tags count too.")
    item = resolved(taken["/typed"]["application/json"]["schema"])
    assert item["required"] == ["name", "price"]
    assert resolved(answered["/typed"]["application/json"]["schema"])["required"] == ["items"]
    other = resolved(taken["/weigh"]["application/json"]["schema"]["items"])
    assert other["required"] == ["weight"]
    node = resolved(taken["/tree"]["application/json"]["schema"])
    assert resolved(node["properties"]["children"]["items"]) == node
    assert set(taken["/upload"]) == {"multipart/form-data"}
    assert taken["/echo"] == answered["/echo"] == {"application/json": {"schema": {}}}
    exemplary = taken["/exemplary"]["application/json"]
    assert exemplary["example"] == {"x": [1, 2]}
    assert exemplary["schema"]["properties"]["x"]["items"] == {"type": "integer"}
    assert {"application/x-ndjson", "text/event-stream"} <= set(answered["/count"])
    assert {"application/json", "text/event-stream"} == set(answered["/v1/chat/completions"])
    for path, operation in of.items():
        errors = {status for status in operation["responses"] if status != "200"}
        expected = {"400", "408", "413", "415", "422", "500", "502", "503", "504"}
        expected |= {"/typed": {"401"}, "/weigh": {"429"}}.get(path, set())
        assert errors == expected, path
        assert ("security" in operation) == (path == "/typed")
        assert "Retry-After" in operation["responses"]["503"]["headers"]


def test_requests_made_from_the_document_cause_no_server_error(described, run):
    pytest.importorskip("schemathesis", reason="needs schemathesis, and Python 3.11")
    checks = ["not_a_server_error", "status_code_conformance", "content_type_conformance"]
    checks.append("response_schema_conformance")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{described.url}/openapi.json"]
    command += ["--checks", ",".join(checks), "--phases", "examples,fuzzing"]
    command += ["--max-examples", "10", "--seed", "1", "--generation-database", "none"]
    tested = run([*command, "--header", "X-API-Key: key of ann", "--no-color"])
    assert tested.wait() == 0, tested.output


def test_an_example_that_json_cannot_hold_is_an_error(serve):
    wrong = "request_example = object()\n\n        def predict"
    server = serve(SMALL.replace("def predict", wrong), ready=False)
    server.wait_for_line("`request_example` cannot be sent as JSON")
    assert server.wait() != 0
