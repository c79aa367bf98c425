"""Known bugs of LitServe 0.2.19, each described in a comment, and the behaviour of litplex.

Headers of an HTTPException and the charset of forms are rows of test_litserve.py; requests of
clients that have left are in test_cancel.py.
"""

import concurrent.futures
import signal
import threading
import time

import httpx
import pytest
from conftest import is_alive, wait_until

SLOW = """
    import time

    class Slow(ls.LitAPI):
        def predict(self, x):
            time.sleep(x)
            return x

    ls.LitServer(Slow(), workers_per_device=2, restart_workers=True).run(port=0)
"""


def test_sigterm_ends_the_server_and_all_it_started(serve):
    # The parent dies at once; its HTTP process and its workers stay, and go on serving.
    server = serve(SLOW)
    workers = server.workers()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, "/predict", json=0.5)
        server.wait_for_request("/predict")
        server.signal(signal.SIGTERM)
        assert answer.result().json() == 0.5
    assert server.wait() == 0
    assert not any(map(is_alive, workers))


def test_the_request_of_a_worker_that_dies_is_answered(serve):
    # With restart_workers=True and processes, the default, the request hangs.
    server = serve("""
        import os

        class Dies(ls.LitAPI):
            def predict(self, x):
                if x == "die":
                    os._exit(3)
                return x

        ls.LitServer(Dies(), restart_workers=True).run(port=0)
    """)
    assert server.post("/predict", json="die").status_code == 502
    assert server.post("/predict", json="live").json() == "live"


def test_two_paths_may_end_in_the_same_segment(serve):
    # The two overwrite each other's status: the server says that it is ready when half of it is.
    server = serve("""
        class One(ls.LitAPI):
            def predict(self, x):
                return 1

        class Two(ls.LitAPI):
            def predict(self, x):
                return 2

        ls.LitServer([One(api_path="/v1/predict"), Two(api_path="/v2/predict")]).run(port=0)
    """)
    for path, output in [("/v1/predict", 1), ("/v2/predict", 2)]:
        assert server.post(path, json=0).json() == output
    assert server.client.get("/info").json()["server"]["stream"] == {
        "/v1/predict": False,
        "/v2/predict": False,
    }


def test_the_window_of_a_batch_opens_with_its_first_request(serve):
    # It opens when a worker begins to look, so that the first request may find it nearly closed
    # and is computed alone.
    server = serve("""
        class Sizes(ls.LitAPI):
            def predict(self, xs):
                return [len(xs)] * len(xs)

        ls.LitServer(Sizes(max_batch_size=8, batch_timeout=1.0)).run(port=0)
    """)
    time.sleep(0.9)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda x: server.post("/predict", json=x).json(), range(4)))
    assert sizes == [4] * 4


def test_one_bad_item_fails_alone(serve):
    # Every request of its batch is answered 500.
    server = serve("""
        class Inverse(ls.LitAPI):
            def predict(self, xs):
                return [1 / x for x in xs]

        ls.LitServer(Inverse(max_batch_size=4, batch_timeout=1.0)).run(port=0)
    """)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda x: server.post("/predict", json=x), [1, 0, 2, 4]))
    assert [answer.status_code for answer in answers] == [200, 500, 200, 200]


def test_a_stream_that_fails_is_seen_to_fail(serve):
    # Before the first chunk: 200 and an empty body. Later: an end as if it were complete.
    server = serve("""
        class Fails(ls.LitAPI):
            def predict(self, x):
                if x == 0:
                    raise ls.HTTPException(409, "taken")
                yield x
                raise RuntimeError

        ls.LitServer(Fails(stream=True)).run(port=0)
    """)
    answer = server.post("/predict", json=0)
    assert (answer.status_code, answer.json()) == (409, {"detail": "taken"})
    with pytest.raises(httpx.RemoteProtocolError):
        server.post("/predict", json=1)


def test_answers_are_compressed_beside_a_stream(serve):
    # One API that streams turns compression off for all.
    server = serve("""
        class Long(ls.LitAPI):
            def predict(self, x):
                return "x" * 5000

        class Streams(ls.LitAPI):
            def predict(self, x):
                yield x

        apis = [Long(), Streams(stream=True, api_path="/stream")]
        ls.LitServer(apis).run(port=0, compression=True)
    """)
    answer = server.post("/predict", json=0)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json() == "x" * 5000


def test_a_request_past_its_time_is_answered_on_time(serve):
    # The 504 comes when a worker takes the request, and never where the worker is stuck.
    server = serve(SLOW.replace("workers_per_device=2", "timeout=0.5"))
    blocking = threading.Thread(target=server.post, args=["/predict"], kwargs={"json": 3})
    blocking.start()
    time.sleep(0.2)
    answer = server.post("/predict", json=0)
    assert answer.status_code in (503, 504)
    blocking.join()


def test_arguments_that_are_not_needed_are_accepted(serve):
    # fast_queue has had no effect since 2025; here there is no queue that it could speed up.
    server = serve("""
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        ls.LitServer(Echo(), fast_queue=True, track_requests=True).run(
            port=0, num_api_servers=2, api_server_worker_type="thread", log_level="debug")
    """)
    wait_until(lambda: server.post("/predict", json=1).json() == 1)
