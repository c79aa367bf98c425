"""Hooks that call other endpoints: values, errors, time, departures, deaths, stops."""

import json
import re
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import NOTES, Server, wait_until

JSON = {"Content-Type": "application/json"}

# The tests send the hook that `/run` and `/arun` run. Others note what happens to them in a file.
SERVER = (
    NOTES
    + """
    import asyncio, textwrap

    class Echo(ls.LitAPI):
        def predict(self, x, context):
            if not isinstance(x, dict):
                return x
            if "raise" in x:
                raise ls.HTTPException(x["raise"], "as asked", headers={"Retry-After": "7"})
            if "boom" in x:
                raise RuntimeError("a secret of the callee")
            if "context" in x:
                return getattr(context, x["context"])
            if "array" in x:
                x["array"] = x["array"] * 2
                return {**x, "type": str(type(x["array"]))}
            return x

    class Slow(ls.LitAPI):
        def predict(self, x, context):
            note(f"began {x}")
            while not context.cancelled and not os.path.exists("gate"):
                time.sleep(0.005)
            note(f"ended {x} {'cancelled' if context.cancelled else 'done'}")
            return x

    class Dies(ls.LitAPI):
        def predict(self, x):
            note(f"pid {os.getpid()}")
            if x == "always" or not os.path.exists("died"):
                open("died", "w").close()
                os._exit(1)
            return x

    class Batch(ls.LitAPI):
        def predict(self, xs):
            note(f"batch of {len(xs)}")
            return [x if x != "bad" else ls.HTTPException(422, "bad") for x in xs]

    class Numbers(ls.LitAPI):
        def predict(self, count):
            try:
                for n in range(count):
                    if n == 1000:
                        raise ls.HTTPException(418, "a thousand")
                    yield {"n": n, "pad": "x" * 1000}
            finally:
                note(f"closed at {n}")

    class Chat(ls.LitAPI):
        def predict(self, messages):
            for word in ("one", " two"):
                yield word

    class Embed(ls.LitAPI):
        def predict(self, text):
            return [[1.0, 2.0]]

        def encode_response(self, output):
            return {"embeddings": output, "prompt_tokens": 2, "total_tokens": 2}

    class Calls(ls.LitAPI):
        echo = ls.endpoint("/echo")
        slow = ls.endpoint("/slow")
        dies = ls.endpoint("/dies")
        batch = ls.endpoint("/batch")
        numbers = ls.endpoint("/numbers")
        chat = ls.endpoint("/v1/chat/completions")
        vectors = ls.endpoint("/v1/embeddings")
        hurried = ls.endpoint("/slow", timeout=0.2)
        run_ = ls.endpoint("/run")
        arun = ls.endpoint("/arun")

        def hook(self, code):
            scope = dict(globals())
            exec(f"{self.define} hook(self, context):\\n" + textwrap.indent(code, "    "), scope)
            return scope["hook"]

    class Run(Calls):
        define = "def"

        def predict(self, code, context):
            return self.hook(code)(self, context)

    class ARun(Calls):
        define = "async def"

        async def predict(self, code, context):
            return await self.hook(code)(self, context)

    class Inner(ls.LitAPI):
        other = ls.endpoint("/slow")

        def predict(self, xs):
            return list(self.other.map(xs, in_flight=100))

    class Outer(ls.LitAPI):
        other = ls.endpoint("/inner")

        def predict(self, xs):
            return list(self.other.map(xs))

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Run(), path="/run", workers_per_device=2, timeout=20),
            ls.LitServer(ARun(), path="/arun", timeout=20),
            ls.LitServer(Echo(), path="/echo"),
            ls.LitServer(Slow(), path="/slow"),
            ls.LitServer(Dies(), path="/dies"),
            ls.LitServer(Batch(max_batch_size=16), path="/batch"),
            ls.LitServer(Numbers(stream=True), path="/numbers"),
            ls.LitServer(Chat(spec=ls.OpenAISpec())),
            ls.LitServer(Embed(spec=ls.OpenAIEmbeddingSpec())),
            port=0,
            grace=20,
        )
"""
)


@pytest.fixture
def start(serve, tmp_path):
    """Starts the server; the gate for its slow hooks is closed."""

    def begin():
        server = serve(SERVER)
        server.gate = tmp_path / "gate"
        return server

    return begin


def run(server, code, path="/run", **headers):
    return server.post(path, json=code, headers=headers)


def value(server, code, path="/run"):
    response = run(server, code, path)
    assert response.status_code == 200, (code, response.text)
    return response.json()


def test_values_pass_in_all_forms_of_calls(start, notes):
    server = start()
    assert value(server, "return self.echo({'a': [1, 'ü', None]})") == {"a": [1, "ü", None]}
    assert value(server, "return repr(self.echo(b'\\0\\xff'))") == repr(b"\0\xff")
    assert value(server, "return self.echo('x' * 10_000_000) == 'x' * 10_000_000") is True
    assert value(server, "return len(self.echo(bytes(10_000_000)))") == 10_000_000
    assert value(server, "return self.call('/echo', 5)") == 5
    assert value(server, "return await self.acall('/echo', 5)", "/arun") == 5
    gathered = "return ls.gather(*[self.echo.later(n) for n in range(20)])"
    assert value(server, gathered) == list(range(20))
    gathered = "return await asyncio.gather(*[self.echo.acall(n) for n in range(20)])"
    assert value(server, gathered, "/arun") == list(range(20))
    # A chain: the hook of one endpoint calls one that calls.
    chain = "return self.run_('return self.echo(3)')"
    assert value(server, chain) == 3
    assert (
        value(server, "return await self.run_.acall('return self.arun(\"return 4\")')", "/arun")
        == 4
    )
    streamed = "return [x['n'] for x in self.numbers.stream(5)]"
    assert value(server, streamed) == [0, 1, 2, 3, 4]
    assert value(server, "return len(self.numbers(500))") == 500
    streamed = "return [x['n'] async for x in self.numbers.astream(5)]"
    assert value(server, streamed, "/arun") == [0, 1, 2, 3, 4]
    # More than the credit of a stream, and an end before its end.
    assert (
        value(server, "return sum(1 for x in self.numbers.stream(990) for _ in range(3))") == 2970
    )
    ended = """
for x in self.numbers.stream(10**9):
    if x["n"] == 3:
        return x["n"]
"""
    before = len(notes())
    assert value(server, ended) == 3
    wait_until(lambda: any(line.startswith("closed at") for line in notes()[before:]))
    assert int(notes()[-1].split()[-1]) < 10**6


def test_arrays_pass_between_hooks(start):
    pytest.importorskip("numpy")
    server = start()
    code = """
import numpy
got = self.echo({"array": numpy.arange(2_000_000, dtype="f4"), "bytes": b"b"})
array = got["array"]
return [str(array.dtype), array.shape, float(array[-1]), array.flags.writeable,
        array.flags.aligned, repr(got["bytes"]), got["type"]]
"""
    expected = ["float32", [2_000_000], 3999998.0, False, True, "b'b'", "<class 'numpy.ndarray'>"]
    assert value(server, code) == expected


def test_a_map_fills_the_batches_of_its_callee(start, notes):
    server = start()
    assert value(server, "return list(self.batch.map(range(64)))") == list(range(64))
    assert notes() == ["batch of 16"] * 4
    got = value(
        server,
        """
got = self.batch.map(["a", "bad", "c"], return_exceptions=True)
return [getattr(y, "status", y) for y in got]
""",
    )
    assert got == ["a", 422, "c"]
    mapped = "return [y async for y in self.batch.amap(range(100))]"
    assert value(server, mapped, "/arun") == list(range(100))


CAUGHT = """
try:
    return {call}
except ls.CallError as error:
    return [error.status, error.detail, error.calls, error.retry_after]
"""


def test_endpoints_of_openais_api_are_called_with_its_objects(start):
    server = start()
    message = "{'model': 'Chat', 'messages': [{'role': 'user', 'content': 'hi'}]}"
    answer = value(server, f"return self.chat({message})")
    assert answer["choices"][0]["message"]["content"] == "one two"
    chunks = value(server, f"return list(self.chat.stream({message}))")
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    said = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(said) == "one two"
    vectors = value(server, "return self.vectors({'model': 'Embed', 'input': ['a']})")
    assert vectors["data"][0]["embedding"] == [1.0, 2.0]
    status, detail, *_ = value(server, CAUGHT.replace("{call}", "self.chat({'messages': 3})"))
    assert status in (400, 422)
    assert "messages" in str(detail)


def test_errors_have_their_status_and_the_path_of_calls(start):
    server = start()

    def caught(call, path="/run"):
        return value(server, CAUGHT.replace("{call}", call), path)

    hop = ["/run#0", "/run#1"]
    for status in (404, 418, 503):
        code, detail, calls, after = caught(f"self.echo({{'raise': {status}}})")
        assert (code, detail, after) == (status, "as asked", "7")
        assert calls[0] in hop
        assert calls[-1] == "/echo"
    code, detail, calls, _ = caught("self.echo({'boom': 1})")
    assert (code, detail) == (500, "Internal server error")
    code, detail, *_ = caught("self.call('/nowhere', 1)")
    assert code == 404
    assert "/echo" in detail
    # Of a call of a call, the path has all endpoints.
    inner = "self.arun('return await self.echo.acall({\"raise\": 503})')"
    code, detail, calls, after = caught(inner)
    assert (code, len(calls), calls[1], calls[2], after) == (503, 3, "/arun#0", "/echo", "7")
    assert "as asked" in detail
    code, detail, calls, _ = caught(inner.replace("503", "422"))
    assert (code, calls[-1]) == (500, "/echo")
    assert "failed with 422" in detail
    # Clients get the same, where no hook catches the error.
    refused = run(server, "return self.echo({'raise': 503})")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")
    assert "→ /echo failed with 503: as asked" in refused.json()["detail"]
    failed = run(server, "return self.echo({'boom': 1})")
    assert failed.status_code == 500
    assert "→ /echo failed with 500" in failed.json()["detail"]
    assert "secret" not in failed.text
    broken = value(
        server,
        """
got = []
try:
    for x in self.numbers.stream(2000):
        got.append(x)
except ls.CallError as error:
    return [len(got), error.status, error.detail, error.calls[1:]]
""",
    )
    assert broken == [1000, 418, "a thousand", ["/numbers"]]


def test_a_call_has_what_is_left_of_the_time_of_its_parent(start, notes):
    server = start()
    left = value(
        server, "time.sleep(0.3)\nreturn [context.remaining, self.echo({'context': 'remaining'})]"
    )
    assert left[1] <= left[0] <= 19.7
    late = run(server, "return self.slow('late')", **{"X-Request-Timeout": "0.5"})
    assert late.status_code == 504
    wait_until(lambda: "ended late cancelled" in notes())
    status, _, calls, _ = value(server, CAUGHT.replace("{call}", "self.hurried('hurried')"))
    assert (status, calls[-1]) == (504, "/slow")
    wait_until(lambda: "ended hurried cancelled" in notes())


def leave(server, code, path="/run"):
    """Sends a request over a connection that the caller closes."""
    address = urlsplit(server.url)
    client = socket.create_connection((address.hostname, address.port), 20)
    body = json.dumps(code)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return client


def test_a_client_that_leaves_cancels_the_calls_three_levels_deep(start, notes):
    server = start()
    deep = "return self.arun('return await self.run_.acall(\"return self.slow(1)\")')"
    client = leave(server, deep)
    wait_until(lambda: "began 1" in notes())
    client.close()
    wait_until(lambda: "ended 1 cancelled" in notes())
    # All places are free.
    assert value(server, "return self.run_('return 2')") == 2


def test_calls_that_are_not_waited_for_are_cancelled_when_the_hook_returns(start, notes):
    server = start()
    code = """
self.slow.later("dropped")
while not os.path.exists("notes"):
    time.sleep(0.005)
return 1
"""
    assert value(server, code) == 1
    wait_until(lambda: "ended dropped cancelled" in notes())


def test_a_place_is_free_when_its_hook_has_returned(start, notes):
    server = start()
    code = """
try:
    return self.slow("left")
except ls.CallError as error:
    note(f"caught {error.status}")
    wait_for("gate")
    note("returned")
    raise
"""
    clients = [leave(server, code.replace("left", name)) for name in ("first", "second")]
    wait_until(lambda: "began first" in notes() or "began second" in notes())
    for client in clients:
        client.close()
    wait_until(lambda: notes().count("caught 499") == 2)
    # Both workers still run hooks whose clients have left.
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(value, server, "note('third')\nreturn 3")
        time.sleep(0.3)
        assert "third" not in notes()
        server.gate.touch()
        assert third.result() == 3
    assert notes().index("returned") < notes().index("third")


def test_a_callee_that_dies_is_retried_at_its_hop(start, notes):
    server = start()
    assert value(server, "note('outer')\nreturn self.dies('once')") == "once"
    assert notes().count("outer") == 1
    assert len({line for line in notes() if line.startswith("pid")}) == 2
    # A worker that dies within a second of its start has a backoff, and until then calls get 503.
    time.sleep(1.2)
    status, detail, calls, _ = value(server, CAUGHT.replace("{call}", "self.dies('always')"))
    assert (status, calls[-1]) == (502, "/dies"), detail


def test_a_caller_that_dies_cancels_its_calls_and_is_retried(start, notes):
    server = start()
    code = """
if os.path.exists("second"):
    return "second"
open("second", "w").close()
call = self.slow.later("orphan")
while not os.path.exists("notes"):
    time.sleep(0.005)
os._exit(1)
"""
    assert value(server, code) == "second"
    wait_until(lambda: "ended orphan cancelled" in notes())


def test_a_request_that_was_let_in_makes_its_calls_while_the_server_stops(start, notes, tmp_path):
    server = start()
    code = """
note("let in")
wait_for("stopping")
return [self.echo(1), list(self.batch.map([1, 2])), self.run_("return self.echo(3)")]
"""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(run, server, code)
        wait_until(lambda: "let in" in notes())
        server.signal(signal.SIGTERM)
        time.sleep(0.2)
        (tmp_path / "stopping").touch()
        response = answer.result()
    assert (response.status_code, response.json()) == (200, [1, [1, 2], 3])
    assert server.wait() == 0


def test_calls_that_wait_for_each_other_are_refused(start):
    server = start()
    # Each of both workers of `/run` waits for a third.
    code = """
note("one")
deadline = time.monotonic() + 10
while open("notes").read().count("one") < 2 and time.monotonic() < deadline:
    time.sleep(0.005)
return self.run_("return 1")
"""
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: run(server, code), range(2)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 508], [answer.text for answer in answers]
    refused = next(answer for answer in answers if answer.status_code == 508)
    assert "/run#" in refused.json()["detail"]


def test_programs_for_litserve_call(serve):
    server = serve(
        """
        import litserve

        class Inner(litserve.LitAPI):
            def setup(self, device):
                pass

            def decode_request(self, request):
                return request["input"]

            def predict(self, x):
                return x * x

            def encode_response(self, output):
                return {"output": output}

        class Outer(Inner):
            def __init__(self, **options):
                super().__init__(**options)
                self.inner = ls.endpoint("/inner")

            def predict(self, x):
                return self.inner({"input": x})["output"] + 1

        if __name__ == "__main__":
            litserve.LitServer([Inner(api_path="/inner"), Outer(api_path="/outer")]).run(port=0)
        """.replace("import litserve\n", "import litplex.compat as litserve\n")
    )
    assert server.post("/outer", json={"input": 3}).json() == {"output": 10}


def test_the_program_of_the_page_about_calls_answers_as_it_says(serve):
    page = (Path(__file__).parents[2] / "docs" / "compound.md").read_text("utf-8")
    program = re.search(r"```python\nimport litplex as ls\n(.*?__main__.*?)```", page, re.DOTALL)
    said = re.search(r"--json '(.*?)'` answers `(.*?)`", page)
    assert program is not None
    assert said is not None
    server = serve(program[1].replace("port=8000", "port=0"))
    assert server.post("/ask", content=said[1], headers=JSON).text == said[2]


def edge(caller, callee, kind="call", steps=()):
    """Returns an edge of the graph of endpoints."""
    return {"from": caller, "to": callee, "kind": kind, "steps": list(steps)}


def test_declared_calls_are_checked(litplex, script, run):
    program = script(
        """
        class Ask(ls.LitAPI):
            missing = ls.endpoint("/nowhere")
            again = ls.endpoint("/echo")

            def predict(self, x):
                return self.missing(x)

        class Echo(ls.LitAPI):
            def __init__(self, **options):
                super().__init__(**options)
                self.ask = ls.endpoint("/ask")

            def predict(self, x):
                return self.ask(x)

        if __name__ == "__main__":
            ls.run_servers(
                ls.LitServer(Ask(), path="/ask", workers_per_device=2),
                ls.LitServer(Echo(), path="/echo"),
                port=0,
            )
        """
    )
    status, out, errors = litplex("check", program)
    missing = "there is no endpoint `/nowhere`; there are `/ask`, `/echo`"
    assert status == 2
    assert f"endpoint `/ask`: a call that it declares cannot be made: {missing}" in errors
    ended = run([sys.executable, program], kind=Server)
    ended.wait_for_line(f"endpoint `/ask`: a call that it declares cannot be made: {missing}")
    assert ended.wait() != 0
    # Without the error, the check shows the calls and their cycle.
    program.write_text(program.read_text().replace("/nowhere", "/echo"))
    status, out, _ = litplex("check", program)
    assert status == 0
    assert "  calls                    /echo\n" in out
    assert "warning: cycle of calls `/ask → /echo → /ask`" in out
    assert "\ncalls between endpoints\n  /ask → /echo\n  /echo → /ask\n" in out
    edges = [edge("/ask", "/echo"), edge("/echo", "/ask")]
    assert json.loads(litplex("check", "--json", program)[1])["graph"]["edges"] == edges
    server = run([sys.executable, program], kind=Server).wait_until_ready()
    server.wait_for_line("cycle of calls `/ask → /echo → /ask`: `/echo` computes one request at")
    nodes = [
        {"id": path, "name": name, "path": path, "kind": "python"}
        for path, name in (("/ask", "Ask"), ("/echo", "Echo"))
    ]
    assert server.client.get("/info").json()["graph"] == {"nodes": nodes, "edges": edges}
    document = server.client.get("/openapi.json").json()
    assert "/ask → /echo\n/echo → /ask\n" in document["info"]["description"]
