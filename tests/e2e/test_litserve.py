"""A program has the same responses on LitServe and on litplex, except for listed differences."""

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from conftest import PATIENCE, Program, descendants, is_alive, wait_until

pytest.importorskip("litserve")

PROGRAMS = Path(__file__).parents[1] / "litserve"
KEYS = {"LIT_SERVER_API_KEY": "key", "LIT_SHUTDOWN_API_KEY": "stop"}
COMPARED = (
    "content-type",
    "content-disposition",
    "x-a",
    "x-pot",
    "content-encoding",
    "vary",
    "allow",
    "www-authenticate",
    "x-why",
    "x-passed",
    "x-marked",
    "access-control-allow-origin",
    "access-control-allow-methods",
)
DIFFERS: Any = object()


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def python_path(*directories):
    """Returns a search path that begins with these directories."""
    known = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, directories), *filter(None, [known])])


def is_listening(port, program):
    assert program.process.poll() is None, program.output
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def started(stack, command, directory, env, health):
    """Returns a program that serves, and a client for it; both end with the stack."""
    port = free_port()
    program = Program([*map(str, command), str(port)], directory, {**env, "NO_PROXY": "*"})
    stack.callback(end, program)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)
    stack.callback(client.close)
    if "LIT_SERVER_API_KEY" in env:
        client.headers["X-API-Key"] = "key"

    # LitServe says that it has started a moment before it listens.
    wait_until(lambda: is_listening(port, program), lambda: program.output)
    wait_until(lambda: client.get(health).status_code == 200, lambda: program.output)
    return SimpleNamespace(program=program, client=client)


@pytest.fixture(scope="module", params=["plain", "several", "typed", "fronted", "hooked"])
def pair(request, tmp_path_factory):
    """Both servers with one program."""
    script = PROGRAMS / f"{request.param}.py"
    env, health = (KEYS, "/healthz") if request.param == "several" else ({}, "/health")
    directory = tmp_path_factory.mktemp(request.param)
    commands = {"theirs": [sys.executable], "ours": [sys.executable, "-m", "litplex.compat"]}
    env = {**env, "PYTHONPATH": python_path(PROGRAMS / "without_mcp")}
    with contextlib.ExitStack() as stack:
        sides = {
            side: started(stack, [*command, script], directory, env, health)
            for side, command in commands.items()
        }
        yield SimpleNamespace(name=request.param, **sides)


def end(program):
    """Ends it with all that it started: LitServe leaves processes behind."""
    family = [program.process.pid, *descendants(program.process.pid)]
    for pid in filter(is_alive, family):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    program.kill()


def posted(path, *values):
    return [("POST", path, {"json": value}, {}) for value in values]


# Method, path, request, and difference: a part of litplex's response where LitServe is wrong.
Row = tuple[str, str, dict[str, Any], dict[str, Any]]
# LitServe names no media type.
TEXT = {"content-type": "text/plain; charset=utf-8"}
PLAIN: list[Row] = [
    *posted("/predict", {"a": [1, 2.5, None, "ß"]}, "x", 4, 0.1, [], "response", "json", "none",
            "float", "list", "bytes", "text", "file", "context", "device", "encode"),
    ("POST", "/predict", {"content": b"null"}, {}),
    ("POST", "/predict/?a=1", {"json": "x"}, {}),
    ("GET", "/health/", {}, {}),
    ("POST", "/predict", {"json": "x" * 2000}, {}),
    # LitServe drops the headers of an HTTPException.
    ("POST", "/predict", {"json": "decode"}, {"x-pot": "tea"}),
    ("POST", "/predict", {"json": "predict"}, {}),
    ("POST", "/predict", {"data": {"a": "1", "b": "zwei"}}, {}),
    # LitServe answers 500.
    ("POST", "/predict", {"content": b"{", "headers": {"Content-Type": "application/json"}},
     {"status": 400, "body": DIFFERS}),
    ("GET", "/predict", {}, {"body": DIFFERS}),
    ("GET", "/nothing", {}, {"body": DIFFERS}),
    ("GET", "/health", {}, TEXT),
]  # fmt: skip
API_KEY = {"body": DIFFERS, "www-authenticate": "APIKey"}
SEVERAL: list[Row] = [
    ("POST", "/v1/batched", {"json": {"x": 3}}, {}),
    ("POST", "/metrics", {"json": {"x": 3}}, {}),
    ("POST", "/livez", {"json": {"x": 3}}, {}),
    ("POST", "/awaited", {"json": {"x": 3}}, {}),
    # LitServe names no media type.
    ("POST", "/streamed", {"json": {"n": 3}}, {"content-type": "application/x-ndjson"}),
    ("POST", "/words", {"json": {"n": 3}}, {"content-type": "text/plain; charset=utf-8"}),
    ("GET", "/healthz", {}, {"content-type": "text/plain; charset=utf-8"}),
    ("GET", "/about", {"headers": {"X-API-Key": "wrong"}}, API_KEY),
    ("POST", "/awaited", {"headers": {"X-API-Key": "wrong"}}, API_KEY),
    ("POST", "/awaited", {"json": {"x": "y" * 2000}}, {"body": DIFFERS}),
    ("POST", "/stop", {}, {}),
    (
        "POST",
        "/stop",
        {"headers": {"Authorization": "Bearer wrong"}},
        {"body": DIFFERS, "www-authenticate": "Bearer"},
    ),
]


TYPED: list[Row] = [
    *posted("/modelled", {"name": "a", "size": 2}, {"name": "a", "size": 2, "note": None, "b": 1},
            {"size": 0}, {"name": 1, "size": "x"}, [], "text"),
    ("POST", "/modelled", {}, {}),
    ("POST", "/modelled", {"content": b"{", "headers": {"Content-Type": "application/json"}}, {}),
    ("POST", "/files", {"files": {"request": ("a.png", b"\x89PNG", "image/png")}}, {}),
    ("POST", "/files", {"files": {"other": ("a.png", b"\x89PNG", "image/png")}}, {}),
    ("POST", "/files", {"json": {"request": "a"}}, {}),
    ("POST", "/awaited_files", {"files": {"request": ("a.png", b"PNG...", "image/png")}}, {}),
    ("POST", "/anything", {"json": {"a": "b"}}, {}),
    ("POST", "/anything", {"data": {"a": "b", "c": "d"}}, {}),
    ("POST", "/anything", {"files": {"f": ("a.txt", b"abc")}, "data": {"a": "b"}}, {}),
    # LitServe answers 500.
    ("POST", "/anything",
     {"content": b"a=b", "headers":
         {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}},
     {"status": 200, "body": [{"a": "b"}]}),
]  # fmt: skip
BEARER = {"Authorization": "Bearer right"}
CORS = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
FRONTED: list[Row] = [
    ("POST", "/guarded/?a=1", {"json": "x"}, {}),
    ("GET", "/health/", {}, {}),
    ("POST", "/guarded", {"json": 1}, {}),
    ("POST", "/guarded", {"json": 1, "headers": {"Authorization": "Bearer wrong"}}, {}),
    ("POST", "/guarded", {"json": 1, "headers": {"Authorization": "Basic right"}}, {}),
    ("POST", "/guarded", {"json": {"a": [1, "ß"]}, "headers": BEARER}, {}),
    ("POST", "/guarded", {"data": {"a": "1"}, "headers": BEARER}, {}),
    ("POST", "/guarded", {"json": 1, "headers": {**BEARER, "X-Stop": "plain"}}, {}),
    ("POST", "/guarded", {"json": 1, "headers": {**BEARER, "X-Stop": "given"}}, {}),
    ("POST", "/guarded", {"json": 1, "headers": {**BEARER, "X-Body": "[1, 2, 3]"}}, {}),
    ("POST", "/guarded", {"json": [1, 2, 3], "headers": {**BEARER, "X-Body": "1"}}, {}),
    ("POST", "/guarded", {"json": 1, "headers": {**BEARER, **CORS}}, {}),
    (
        "POST",
        "/guarded",
        {"content": [b"[", b"1" * 2000, b"]"], "headers": BEARER},
        {"status": 413, "body": [{"detail": "Payload too large"}]},
    ),
    (
        "POST",
        "/guarded",
        {"json": "x" * 2000, "headers": BEARER},
        {"status": 413, "body": [{"detail": "Payload too large"}]},
    ),
    ("OPTIONS", "/guarded", {"headers": CORS}, {}),
    ("GET", "/guarded", {}, {}),
    ("POST", "/awaited", {"json": 1}, {}),
    ("POST", "/awaited", {"json": 1, "headers": {"X-Token": "x"}}, {}),
    ("POST", "/awaited", {"json": 1, "headers": {"X-Token": "2"}}, {}),
    ("POST", "/awaited", {"json": 1, "headers": {"X-Token": "1"}}, {}),
    # LitServe names no media type.
    ("POST", "/streamed", {"json": 3}, {"content-type": "application/x-ndjson"}),
    ("GET", "/custom/a", {"params": {"q": 2}}, {}),
    ("GET", "/custom/a", {"params": {"q": "x"}}, {}),
    ("GET", "/predictions", {}, {}),
    ("GET", "/members", {}, {}),
    ("GET", "/members", {"headers": BEARER}, {}),
    ("POST", "/sub/there", {"json": [1]}, {}),
    ("GET", "/sub/here", {}, {}),
    ("GET", "/nothing", {}, {}),
    # Middlewares are not around probes.
    ("GET", "/health", {}, {**TEXT, "vary": None, "x-passed": None, "x-marked": None}),
]
HOOKED: list[Row] = [
    *posted("/batched", "a", {"b": 1}),
    ("POST", "/formatted", {"json": 2}, TEXT),
    ("POST", "/formatted", {"json": 0}, TEXT),
    ("POST", "/formatted-batch", {"json": 2}, TEXT),
    *posted("/echo", 1, "wrong"),
    ("GET", "/health", {}, TEXT),
    ("GET", "/seen", {}, {}),
]
ROWS = {
    "plain": PLAIN,
    "several": SEVERAL,
    "typed": TYPED,
    "fronted": FRONTED,
    "hooked": HOOKED,
}


def answer_of(client, method, path, sent):
    response = client.request(method, path, **sent)
    answer = {name: response.headers.get(name) for name in COMPARED}
    return {"status": response.status_code, "body": parsed(response.text), **answer}


def parsed(text):
    """Returns the values of lines of JSON, or the text."""
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return text


def test_the_same_request_has_the_same_answer(pair):
    rows = ROWS[pair.name]
    found = []
    for method, path, sent, differs in rows:
        theirs = answer_of(pair.theirs.client, method, path, sent)
        ours = answer_of(pair.ours.client, method, path, sent)
        expected = {**theirs, **differs}
        for name, value in expected.items():
            if value is not DIFFERS and ours[name] != value:
                found.append(f"{method} {path} {sent}: {name} is {ours[name]!r}, not {value!r}")
    assert not found, "\n".join(found)


def test_the_server_is_described_as_theirs_is(pair):
    path = "/about" if pair.name == "several" else "/info"
    theirs, ours = (side.client.get(path).json() for side in (pair.theirs, pair.ours))
    assert ours == theirs


def test_the_openapi_document_holds_what_theirs_holds(pair):
    theirs, ours = (side.client.get("/openapi.json").json() for side in (pair.theirs, pair.ours))
    for path, methods in ours["paths"].items():
        their_body = theirs["paths"][path]["post"].get("requestBody", {"content": {}})["content"]
        our_body = methods["post"]["requestBody"]["content"]
        if "application/json" in their_body:
            assert our_body == their_body
        else:
            assert set(our_body) >= set(their_body), path
    for name, schema in ours.get("components", {}).get("schemas", {}).items():
        for field in schema["properties"].values():
            if field.get("default", ...) is None:
                del field["default"]  # FastAPI leaves it out.
        assert schema == theirs["components"]["schemas"][name]
    assert "swagger-ui" in pair.ours.client.get("/docs").text


@pytest.mark.parametrize(
    "line",
    [
        "Application startup complete.",
        r"Uvicorn running on http://0\.0\.0\.0:\d+ \(Press CTRL\+C to quit\)",
        r"Swagger UI is available at http://0\.0\.0\.0:\d+/docs",
    ],
)
def test_scripts_find_the_lines_that_they_wait_for(pair, line):
    pair.theirs.program.wait_for_line(line)
    pair.ours.program.wait_for_line(line)


MODULE = [sys.executable, "-m", "packaged.server"]
COMPAT = [sys.executable, "-m", "litplex.compat"]


# LitServe cannot serve an instance that cannot be pickled.
@pytest.mark.parametrize(
    ("command", "paths"),
    [
        (MODULE, ["/sent"]),
        ([*COMPAT, *MODULE[1:], "all"], ["/sent", "/made"]),
        ([*COMPAT, *MODULE[1:]], ["/sent"]),
    ],
    ids=["theirs", "ours", "ours_sent"],
)
def test_a_program_may_be_a_module_of_a_package(command, paths, tmp_path):
    env = {"PYTHONPATH": python_path(PROGRAMS, PROGRAMS / "without_mcp")}
    with contextlib.ExitStack() as stack:
        client = started(stack, command, tmp_path, env, "/health").client
        assert client.get("/custom").json() == 8
        for path in paths:
            answer = client.post(path, json=3).json()
            assert answer == {"output": 6, "package": "packaged"}


def test_a_model_that_does_not_load_is_an_exception_of_the_program(run, script):
    program = script(
        """
        import litserve as ls

        class Broken(ls.LitAPI):
            def setup(self, device):
                raise OSError("no weights")

        try:
            ls.LitServer(Broken()).run(port=0, generate_client_file=False)
        except RuntimeError as error:
            print("caught:", error)
        """
    )
    broken = run([sys.executable, "-m", "litplex.compat", program])
    assert broken.wait() == 0
    assert "OSError: no weights" in broken.output
    assert "caught: One or more workers failed to start" in broken.output
