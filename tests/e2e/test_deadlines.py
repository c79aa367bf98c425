"""Time budgets: their sources, and the end of work whose budget is spent."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import wait_until

SLEEPER = """
    import time

    class Sleeper(ls.LitAPI):
        def predict(self, request):
            with open("computed", "a") as file:
                file.write(f"{request['id']}\\n")
            time.sleep(request.get("seconds", 0))
            return request["id"]

    def serve(**options):
        if __name__ == "__main__":
            ls.LitServer(Sleeper(), **options).run(port=0)
"""


def timed(server, body, budget=None):
    headers = {} if budget is None else {"X-Request-Timeout": str(budget)}
    begin = time.monotonic()
    response = server.post("/predict", json=body, headers=headers)
    return response, time.monotonic() - begin


def computed(directory):
    return (directory / "computed").read_text().split()


def test_an_answer_that_does_not_come_in_time_is_a_504(serve):
    server = serve(f"{SLEEPER}\n    serve(timeout=0.5)")
    response, took = timed(server, {"id": "a", "seconds": 4})
    assert (response.status_code, response.json()) == (504, {"detail": "Request timed out"})
    assert 0.5 <= took < 3.9
    # The worker is stuck for a while, and serves again.
    wait_until(lambda: timed(server, {"id": "b"})[0].status_code == 200)


def test_a_wait_may_have_a_limit_of_its_own(serve, tmp_path):
    server = serve(f"{SLEEPER}\n    serve(queue_timeout=0.5)")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(timed, server, {"id": "a", "seconds": 2})
        wait_until((tmp_path / "computed").exists)
        late, took = timed(server, {"id": "b"})
        assert (late.status_code, 0.5 <= took < 1.9) == (504, True)
        assert running.result()[0].json() == "a"
    assert computed(tmp_path) == ["a"]


def test_a_client_may_shorten_its_budget_and_not_lengthen_it(serve):
    server = serve(f"{SLEEPER}\n    serve(timeout=2, workers_per_device=2)")
    assert timed(server, {"id": "c"}, budget=1.5)[0].json() == "c"
    shorter, took = timed(server, {"id": "a", "seconds": 5}, budget=0.3)
    assert (shorter.status_code, 0.3 <= took < 1.9) == (504, True)
    longer, took = timed(server, {"id": "b", "seconds": 6}, budget=60)
    assert (longer.status_code, 2 <= took < 5.9) == (504, True)


@pytest.mark.parametrize("value", ["soon", "", "0", "-1", "nan", "inf", "1e400", "5s"])
def test_an_invalid_budget_is_refused_by_name(serve, tmp_path, value):
    server = serve(f"{SLEEPER}\n    serve()")
    response, _ = timed(server, {"id": "a"}, budget=value)
    assert response.status_code == 400
    assert "`X-Request-Timeout` must be a number of seconds" in response.json()["detail"]
    assert not (tmp_path / "computed").exists()


def test_a_job_that_expired_in_the_queue_never_reaches_a_worker(serve, tmp_path):
    server = serve(f"{SLEEPER}\n    serve(timeout=20)")
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(timed, server, {"id": "first", "seconds": 4})
        wait_until((tmp_path / "computed").exists)
        expired = [pool.submit(timed, server, {"id": f"e{n}"}, 0.5) for n in range(4)]
        patient = [pool.submit(timed, server, {"id": f"p{n}"}) for n in range(3)]
    for call in expired:
        response, took = call.result()
        assert (response.status_code, took < 3.4) == (504, True), response.text
    assert first.result()[0].status_code == 200
    assert [call.result()[0].status_code for call in patient] == [200] * 3
    assert sorted(computed(tmp_path)) == ["first", "p0", "p1", "p2"]


def test_a_worker_that_is_stuck_past_its_deadline_is_replaced(serve, tmp_path):
    server = serve(f"{SLEEPER}\n    serve(timeout=0.5, kill_after=0.5)")
    (stuck,) = server.workers()
    response, took = timed(server, {"id": "stuck", "seconds": 600})
    assert (response.status_code, took < 10) == (504, True)
    wait_until(lambda: len(server.workers()) == 1 and server.workers() != [stuck])
    server.wait_for_line("/predict#0: gone")
    wait_until(lambda: timed(server, {"id": "next"})[0].status_code == 200)
    # The request has no client any longer, so it is not retried.
    assert computed(tmp_path).count("stuck") == 1


def test_a_worker_that_may_be_stuck_is_left_alone(serve):
    server = serve(f"{SLEEPER}\n    serve(timeout=0.3, kill_after=False, heartbeat=0.3)")
    before = server.workers()
    assert timed(server, {"id": "long", "seconds": 4})[0].status_code == 504
    time.sleep(3)
    assert server.workers() == before
    wait_until(lambda: timed(server, {"id": "next"})[0].status_code == 200)
    assert server.workers() == before
    assert ": gone: " not in server.output


STREAMS = """
    import time

    class Streams(ls.LitAPI):
        def predict(self, pauses):
            try:
                for n, pause in enumerate(pauses):
                    time.sleep(pause)
                    yield {"n": n}
            finally:
                with open("closed", "a") as file:
                    file.write("closed\\n")

    if __name__ == "__main__":
        ls.LitServer(Streams(stream=True), timeout=1, chunk_timeout=1, kill_after=False).run(port=0)
"""


def test_a_stream_may_take_longer_than_its_parts(serve):
    response = serve(STREAMS).post("/predict", json=[0.4] * 5)
    assert [json.loads(line)["n"] for line in response.text.splitlines()] == [*range(5)]


def test_a_first_chunk_that_is_late_is_a_504(serve):
    server = serve(STREAMS)
    response, took = timed(server, [3, 0])
    assert (response.status_code, 1 <= took < 2.9) == (504, True)
    assert response.json() == {"detail": "Request timed out"}
    response, took = timed(server, [3, 0], budget=0.2)
    assert response.status_code in (503, 504)


def test_a_stream_that_stalls_is_broken_off_visibly(serve, tmp_path):
    server = serve(STREAMS)
    begin = time.monotonic()
    received = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        server.client.stream("POST", "/predict", json=[0, 0, 4, 0]) as response,
    ):
        assert response.status_code == 200
        for piece in response.iter_raw():
            received += piece
    assert 1 <= time.monotonic() - begin < 3.9
    *good, error = map(json.loads, received.splitlines())
    assert good == [{"n": 0}, {"n": 1}]
    assert error["error"]["status"] == 504
    # The generator is closed where it stands, and the worker takes the next.
    wait_until((tmp_path / "closed").exists)
    wait_until(lambda: timed(server, [0])[0].status_code == 200)


def test_the_context_tells_what_is_left(serve):
    server = serve("""
        class Left(ls.LitAPI):
            def predict(self, x, context):
                return context.remaining

        ls.LitServer(Left(), timeout=20).run(port=0)
    """)
    assert 0 < timed(server, 1, budget=5)[0].json() <= 5
    assert 5 < timed(server, 1)[0].json() <= 20
