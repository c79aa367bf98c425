"""The history of endpoints that a server keeps in memory."""

import json
import os
import pty
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import LITPLEX, wait_until

SERVER = """
    import time

    class Echo(ls.LitAPI):
        def predict(self, x):
            if x == "wrong":
                raise ValueError(x)
            time.sleep(0.02)
            return x

    class Relay(ls.LitAPI):
        echo = ls.endpoint("/echo")

        def predict(self, x):
            return self.echo(x)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Echo(), path="/echo", name="echo"),
            ls.LitServer(Relay(), path="/relay"),
            ls.LitServer(ls.Pipeline("/echo"), path="/pipeline"),
            port=0,
        )
"""


@pytest.fixture
def admin(runtime):
    """Returns the JSON of a GET to the admin API of the only server, and its status."""

    def get(path, **query):
        (socket,) = Path(runtime["XDG_RUNTIME_DIR"], "litplex").glob("*/admin.sock")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
            answer = client.get(f"http://litplex{path}", params=query)
        return answer.status_code, answer.json()

    return get


def test_the_history_has_every_request_by_what_became_of_it(serve, runtime, admin):
    server = serve(SERVER, env=runtime)
    before = time.time()
    for x in (1, 2, 3, "wrong"):
        assert server.post("/echo", json=x).status_code == (500 if x == "wrong" else 200)
    assert server.post("/relay", json=1).json() == 1
    assert server.post("/pipeline", json=1).json() == 1

    def totals(endpoint):
        points = admin("/v1/history", endpoint=endpoint)[1]["points"]
        return {
            "requests": sum(point["requests"] for point in points),
            "jobs": sum(point["jobs"] for point in points),
            "errors": sum(sum(point["errors"].values()) for point in points),
            "model_error": sum(point["errors"]["model_error"] for point in points),
        }

    # Two jobs of `/echo` are calls.
    wait_until(lambda: totals("echo") == {"requests": 4, "jobs": 6, "errors": 1, "model_error": 1})
    one = {"requests": 1, "jobs": 1, "errors": 0, "model_error": 0}
    wait_until(lambda: totals("/relay") == one)
    wait_until(lambda: totals("/pipeline") == {**one, "jobs": 0})
    status, told = admin("/v1/history", endpoint="echo")
    assert (status, told["endpoint"]) == (200, "/echo")
    points = told["points"]
    assert {point["seconds"] for point in points} == {1}
    assert points[-1]["workers_ready"] == 1
    used = [point for point in points if point["requests"] > 0]
    assert all(point["rate"] == point["requests"] for point in used)
    assert 0.01 <= used[0]["p50"] <= used[0]["p99"]
    assert all(point["p50"] is None for point in points if point["requests"] == 0)
    # The time of the first request is within the seconds of its point.
    assert before - 2 <= used[0]["time"] <= time.time()
    times = [point["time"] for point in points]
    assert times == sorted(times)


def test_the_history_has_longer_points_if_asked_for(serve, runtime, admin):
    server = serve(SERVER, env=runtime)
    (worker,) = server.workers()[:1]
    assert server.post("/echo", json=1).json() == 1
    os.kill(worker, signal.SIGKILL)

    def restarts():
        found = [admin("/v1/history", endpoint=e)[1]["points"] for e in ("/echo", "/relay")]
        return sum(point["restarts"] for points in found for point in points)

    wait_until(lambda: restarts() == 1)
    whole = admin("/v1/history", endpoint="/echo", seconds=3600, step=3600)[1]["points"]
    (point,) = whole
    assert (point["requests"], point["jobs"]) == (1, 1)
    assert point["rate"] == pytest.approx(1 / point["seconds"])
    last = admin("/v1/history", endpoint="/echo", seconds=1)[1]["points"]
    assert [point["seconds"] for point in last] == [1]


def test_a_wrong_question_is_refused_with_what_is_right(serve, runtime, admin):
    serve(SERVER, env=runtime)
    for query, expected, words in [
        ({"endpoint": "/no"}, 404, "there is no endpoint `/no`"),
        ({}, 400, "missing field `endpoint`"),
        ({"endpoint": "/echo", "seconds": 0}, 400, "invalid `seconds`: expected 1 to 86400, got 0"),
        ({"endpoint": "/echo", "seconds": 86_401}, 400, "got 86401"),
        ({"endpoint": "/echo", "step": 0}, 400, "invalid `step`: expected at least 1, got 0"),
        ({"endpoint": "/echo", "steps": 1}, 400, "unknown field `steps`"),
    ]:
        status, told = admin("/v1/history", **query)
        assert (status, words in told["error"]) == (expected, True), told
    assert "/v1/history" in admin("/openapi.json")[1]["paths"]


def test_load_says_why_an_endpoint_is_slow(serve, runtime, admin, litplex):
    server = serve(SERVER, env=runtime)

    def load(label):
        return next(e for e in admin("/v1/load")[1]["endpoints"] if e["endpoint"] == label)

    idle = load("/echo")
    assert (idle["state"], idle["workers_ready"], idle["workers"]) == ("ready", 1, 1)
    assert (idle["slow"], idle["queued"], idle["in_flight"]) == (None, 0, 0)
    assert idle["memory"] > 1 << 20
    assert load("/pipeline")["memory"] is None
    assert litplex("pause", "/echo")[0] == 0
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(server.post, path, json=1) for path in ("/echo", "/relay")]
        wait_until(lambda: load("/echo")["queued"] == 2)
        assert load("/echo")["slow"] == "paused: 2 jobs wait until it is resumed"
        assert litplex("resume", "/echo")[0] == 0
        assert [answer.result().json() for answer in held] == [1, 1]
    # The request of `/relay` has waited for its call nearly all of the time.
    wait_until(lambda: "`/echo`, which it calls, takes" in (load("/relay")["slow"] or ""))
    wait_until(lambda: load("/echo")["job_rate"] > 0)
    assert load("/echo")["p99"] > 0.01

    status, out, err = litplex("top")
    assert (status, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split()[:3] == ["ENDPOINT", "STATE", "WORKERS"]
    assert [row.split()[0] for row in rows] == ["/echo", "/relay", "/pipeline"]
    assert "which it calls, takes" in rows[1]
    assert "\x1b" not in out
    told = json.loads(litplex("top", "--json")[1])
    assert [e["endpoint"] for e in told["endpoints"]] == ["/echo", "/relay", "/pipeline"]


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_top_leaves_the_terminal_as_it_was(serve, runtime, ends):
    serve(SERVER, env=runtime)
    terminal, side = pty.openpty()
    env = {**os.environ, **runtime}
    top = subprocess.Popen([LITPLEX, "top"], env=env, stdin=side, stdout=side, stderr=side)
    try:
        os.close(side)
        shown = b""
        # It shows the table more than once.
        while shown.count(b"/pipeline") < 2:
            shown += os.read(terminal, 4096)
        top.send_signal(ends)
        assert top.wait(20) == 0
        while not shown.endswith(b"\x1b[?7h\x1b[?25h\x1b[?1049l"):
            shown += os.read(terminal, 4096)
        assert shown.startswith(b"\x1b[?1049h\x1b[?25l\x1b[?7l")
    finally:
        top.kill()
        top.wait()
        os.close(terminal)
