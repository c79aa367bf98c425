"""Middleware of every request: ids, CORS, and the access log."""

import json
import os
import pty
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import PATIENCE, wait_until

PROGRAM = """
    class Says(ls.LitAPI):
        def predict(self, x, context):
            return context.headers.get("x-request-id")

    class Counts(ls.LitAPI):
        def predict(self, n):
            for number in range(n):
                if number == 3:
                    raise ValueError
                yield number

    ls.run_servers(
        ls.LitServer(Says()),
        ls.LitServer(Counts(stream=True), path="/count"),
        ls.LitServer(Says(), path="/own", api_keys={"ann": "env:ANN"}),
        port=0,
        request_id=True,
        access_log="access.log",
        cors_origins=["https://app.example.org"],
    )
"""
ORIGIN = {"Origin": "https://app.example.org"}
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}


@pytest.fixture
def server(serve):
    return serve(PROGRAM, env={"ANN": "key of ann"})


@pytest.fixture
def logged(tmp_path):
    """Returns the records of the access log, once there are so many."""

    def read(count):
        file = tmp_path / "access.log"
        wait_until(lambda: file.exists() and len(file.read_text().splitlines()) >= count)
        return [json.loads(line) for line in file.read_text().splitlines()]

    return read


def test_a_request_has_one_id_everywhere(server, logged):
    given = server.post("/predict", json=1, headers={"X-Request-Id": "mine"})
    assert given.headers["x-request-id"] == given.json() == "mine"
    made = server.post("/predict", json=1)
    assert made.headers["x-request-id"] == made.json() != "mine"
    forged = server.post("/predict", json=1, headers={"X-Request-Id": "two words"})
    assert forged.json() not in ("two words", made.json())
    missing = server.client.get("/nothing")
    ids = [answer.headers["x-request-id"] for answer in (given, made, forged, missing)]
    assert [record["request_id"] for record in logged(4)] == ids


def test_a_line_has_the_result_of_a_request(server, logged):
    server.post("/own", json=1, headers={"X-API-Key": "key of ann"})
    server.post("/own", json=1)
    server.post("/count", json=2)
    with pytest.raises(httpx.RemoteProtocolError):
        server.post("/count", json=9)
    records = logged(4)
    assert [(r["method"], r["path"], r["status"]) for r in records] == [
        ("POST", "/own", 200),
        ("POST", "/own", 401),
        ("POST", "/count", 200),
        ("POST", "/count", 200),
    ]
    assert [record["holder"] for record in records] == ["ann", None, None, None]
    assert [record["complete"] for record in records] == [True, True, True, False]
    assert records[2]["bytes"] == len("0\n1\n")
    assert all(record["client"] == "127.0.0.1" for record in records)
    assert all(0 < record["duration"] < 60 for record in records)
    assert "key of ann" not in json.dumps(records)


def test_pages_of_the_named_origin_may_call_and_others_may_not(server):
    asked = server.client.options("/own", headers={**ORIGIN, **ASKS})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert asked.headers["access-control-allow-headers"] == "x-api-key"
    # A page must be able to read why it was refused.
    refused = server.post("/own", json=1, headers=ORIGIN)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert "x-request-id" in refused.headers["access-control-expose-headers"]
    other = server.post("/predict", json=1, headers={"Origin": "https://evil.example.org"})
    assert "access-control-allow-origin" not in other.headers
    assert server.post("/predict", json=1).status_code == 200


def test_without_them_nothing_is_added(serve):
    server = serve("""
        class Says(ls.LitAPI):
            def predict(self, x):
                return x

        ls.LitServer(Says()).run(port=0)
    """)
    answer = server.post("/predict", json=1, headers={**ORIGIN, "X-Request-Id": "mine"})
    assert not {"x-request-id", "access-control-allow-origin", "vary"} & set(answer.headers)


COMPRESSED = """
    import time

    class Says(ls.LitAPI):
        def predict(self, n):
            return "x" * n

    class Counts(ls.LitAPI):
        def predict(self, n):
            for number in range(n):
                yield number
            time.sleep(600)

    class Large(ls.LitAPI):
        def predict(self, n):
            for number in range(n):
                yield str(number) * 100_000

    ls.run_servers(
        ls.LitServer(Says()),
        ls.LitServer(Counts(stream=True), path="/count"),
        ls.LitServer(Large(stream=True), path="/large"),
        port=0,
        compression=True,
        server_timing=True,
    )
"""


@pytest.fixture
def compressing(serve):
    return serve(COMPRESSED)


def ask(server, n, accepted, path="/predict"):
    return server.post(path, json=n, headers={"Accept-Encoding": accepted})


def test_responses_have_a_coding_that_the_client_accepts(compressing):
    for n in (5_000, 500_000):
        answer = ask(compressing, n, "br;q=0.1, gzip")
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["vary"] == "Accept-Encoding"
        assert int(answer.headers["content-length"]) < n / 10
        assert answer.json() == "x" * n
    plain = ask(compressing, 5_000, "identity")
    assert "content-encoding" not in plain.headers
    # A cache must not give it to a client that would like another.
    assert plain.headers["vary"] == "Accept-Encoding"
    assert not {"content-encoding", "vary"} & set(ask(compressing, 900, "gzip").headers)
    for accepted, coding in (("gzip, br", "br"), ("gzip, br, zstd", "zstd")):
        with compressing.client.stream(
            "POST", "/predict", json=5_000, headers={"Accept-Encoding": accepted}
        ) as answer:
            assert answer.headers["content-encoding"] == coding
            assert len(b"".join(answer.iter_raw())) < 500


def test_values_of_a_compressed_stream_are_sent_at_once(compressing):
    asked = {"Accept-Encoding": "gzip"}
    with compressing.client.stream("POST", "/count", json=3, headers=asked) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == ["0", "1", "2"]


def test_large_pieces_of_a_stream_are_compressed(compressing):
    answer = ask(compressing, 8, "gzip", "/large")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text == "".join(str(number) * 100_000 for number in range(8))


def test_responses_to_head_are_not_compressed(compressing):
    asked = {"Accept-Encoding": "gzip"}
    assert compressing.client.get("/openapi.json", headers=asked).headers["content-encoding"]
    assert "content-encoding" not in compressing.client.head("/openapi.json", headers=asked).headers


def test_a_response_has_its_duration(compressing):
    for answer in (ask(compressing, 1, "gzip"), compressing.client.get("/nothing")):
        name, _, duration = answer.headers["server-timing"].partition(";dur=")
        assert name == "total"
        assert 0 < float(duration) < 60_000


def leave_unanswered(server, path, header, body):
    """Sends a request and goes away while it is computed."""
    url = urlsplit(server.url)
    with socket.create_connection((url.hostname, url.port)) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: test\r\n{header}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(f"{head}{body}".encode())
        computes = f'litplex_worker_inflight_requests{{endpoint="{path}",worker="0"}} 1'
        wait_until(lambda: computes in server.client.get("/metrics").text)


def test_the_holder_of_a_key_is_known_of_a_request_that_was_not_answered(serve, logged):
    server = serve(
        """
        import time

        class Sleeps(ls.LitAPI):
            def predict(self, seconds):
                time.sleep(seconds)

        ls.LitServer(
            Sleeps(), path="/own", api_keys={"ann": "env:ANN"}, rate_limit="2/h"
        ).run(port=0, access_log="access.log")
        """,
        env={"ANN": "key of ann"},
    )
    headers = {"X-API-Key": "key of ann"}
    leave_unanswered(server, "/own", "X-API-Key: key of ann", "1")
    assert server.post("/own", json=0, headers=headers).status_code == 200
    assert server.post("/own", json=0, headers=headers).status_code == 429
    wait_until(lambda: sum(record["path"] == "/own" for record in logged(1)) == 3)
    records = [record for record in logged(1) if record["path"] == "/own"]
    assert sorted((r["status"], r["holder"]) for r in records) == [
        (200, "ann"),
        (429, "ann"),
        (499, "ann"),
    ]


def test_an_access_log_that_was_moved_away_is_made_anew(server, logged, tmp_path):
    server.post("/predict", json=1)
    logged(1)
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    server.post("/count", json=1)
    assert [record["path"] for record in logged(1)] == ["/count"]
    assert json.loads((tmp_path / "access.log.1").read_text())["path"] == "/predict"


def test_a_terminal_gets_short_lines_and_a_pipe_gets_json(serve, script, tmp_path):
    text = PROGRAM.replace('"access.log"', '"-"')
    server = serve(text, env={"ANN": "key of ann"})
    server.post("/predict", json=1)
    assert json.loads(server.wait_for_line(r"^{.*/predict.*}$")[0])["status"] == 200

    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, script(text)],
        cwd=tmp_path,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ANN": "key of ann"},
    )
    try:
        os.close(theirs)
        assert program.stderr is not None
        line = next(line for line in program.stderr if "listening on" in line)
        url = line.partition("listening on ")[2].split()[0]
        httpx.get(f"{url}/nothing", timeout=PATIENCE)
        said = b""
        while b"/nothing" not in said:
            said += os.read(ours, 4096)
        program.terminate()
        program.communicate(timeout=PATIENCE)
    finally:
        program.kill()
        program.communicate()
        os.close(ours)
    last = said.decode().splitlines()[-1]
    assert "Z GET /nothing 404 " in last and last.rstrip().endswith(" B"), said
