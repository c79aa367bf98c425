"""The history of endpoints that a server keeps in memory."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest
from conftest import wait_until

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
