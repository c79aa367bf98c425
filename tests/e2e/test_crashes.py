"""Workers that die or hang: another worker computes their jobs, or the jobs are answered."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import is_alive, wait_until

CRASHES = """
    import ctypes, os, signal, time

    def die(how):
        if how == "exit":
            os._exit(3)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "segv":
            ctypes.string_at(0)

    class Crashes(ls.LitAPI):
        def predict(self, request):
            with open("computed", "a") as file:
                file.write(f"{request.get('id')}\\n")
            flag = request.get("once")
            if flag is None:
                die(request.get("how"))
            elif not os.path.exists(flag):
                open(flag, "w").close()
                die(request["how"])
            return request.get("id")

    class Square(ls.LitAPI):
        def predict(self, x):
            return x * x

    def serve(**options):
        if __name__ == "__main__":
            ls.run_servers(
                ls.LitServer(Crashes(), path="/crashes", **options),
                ls.LitServer(Square(), path="/square"),
                port=0,
            )
"""

HOW = {"exit": "exited with status 3", "kill": "killed by signal 9", "segv": "killed by signal 11"}


def computed(directory, id):
    return (directory / "computed").read_text().split().count(id)


@pytest.mark.parametrize("how", HOW)
def test_a_request_whose_worker_died_is_answered_by_another(serve, tmp_path, how):
    server = serve(f"{CRASHES}\n    serve()")
    response = server.post("/crashes", json={"id": "a", "how": how, "once": "flag"})
    assert (response.status_code, response.json()) == (200, "a")
    assert computed(tmp_path, "a") == 2
    server.wait_for_line(f"/crashes#0: gone: .*{HOW[how]}")
    assert "/square#0: gone" not in server.output


@pytest.mark.parametrize("how", HOW)
def test_a_poison_request_is_answered_after_two_workers_and_costs_no_other(serve, tmp_path, how):
    server = serve(f"{CRASHES}\n    serve(workers_per_device=2)")
    with ThreadPoolExecutor(8) as pool:
        good = [pool.submit(server.post, "/crashes", json={"id": f"g{n}"}) for n in range(40)]
        poison = pool.submit(server.post, "/crashes", json={"id": "p", "how": how})
        good += [pool.submit(server.post, "/crashes", json={"id": f"h{n}"}) for n in range(40)]
        squares = [pool.submit(server.post, "/square", json=n) for n in range(40)]
    refused = poison.result()
    assert refused.status_code == 502
    assert "2 workers died" in refused.json()["detail"]
    assert computed(tmp_path, "p") == 2
    assert [call.result().status_code for call in good] == [200] * 80
    assert [call.result().json() for call in squares] == [n * n for n in range(40)]
    wait_until(lambda: server.client.get("/health").status_code == 200)
    wait_until(lambda: len(server.workers()) == 3)
    assert server.stop() == 0


def test_requests_that_are_not_idempotent_are_computed_once(serve, tmp_path):
    server = serve(f"{CRASHES}\n    serve(idempotent=False)")
    response = server.post("/crashes", json={"id": "a", "how": "exit"})
    assert response.status_code == 502
    assert "died" in response.json()["detail"]
    wait_until(lambda: server.client.get("/health").status_code == 200)
    assert server.post("/crashes", json={"id": "b"}).json() == "b"
    assert (computed(tmp_path, "a"), computed(tmp_path, "b")) == (1, 1)


def test_a_stream_whose_worker_died_breaks_off_or_is_answered_with_502(serve, tmp_path):
    server = serve("""
        import os

        class Streams(ls.LitAPI):
            def predict(self, n):
                with open("computed", "a") as file:
                    file.write(f"n{n}\\n")
                for i in range(n):
                    yield {"i": i}
                if n < 3:
                    os._exit(3)

        ls.LitServer(Streams(stream=True)).run(port=0)
    """)
    assert server.post("/predict", json=0).status_code == 502
    wait_until(lambda: server.client.get("/health").status_code == 200)
    with server.client.stream("POST", "/predict", json=2) as response:
        assert response.status_code == 200
        received = b""
        with pytest.raises(httpx.RemoteProtocolError):
            for piece in response.iter_raw():
                received += piece
    assert b'{"i":1}' in received and b"502" in received
    wait_until(lambda: server.client.get("/health").status_code == 200)
    assert server.post("/predict", json=3).text.count("\n") == 3
    assert [computed(tmp_path, f"n{n}") for n in (0, 2, 3)] == [1, 1, 1]


def test_a_poisonous_item_of_a_batch_that_raises_costs_only_itself(serve):
    server = serve("""
        class Batched(ls.LitAPI):
            def predict(self, xs):
                if 5 in xs:
                    raise ValueError("five")
                return [[x, len(xs)] for x in xs]

        ls.LitServer(Batched(max_batch_size=8, batch_timeout=0.5)).run(port=0)
    """)
    with ThreadPoolExecutor(8) as pool:
        responses = [*pool.map(lambda x: server.post("/predict", json=x), range(8))]
    assert [r.status_code for r in responses] == [500 if x == 5 else 200 for x in range(8)]
    assert [r.json()[0] for r in responses if r.status_code == 200] == [0, 1, 2, 3, 4, 6, 7]
    server.wait_for_line("ValueError: five")


def test_a_poisonous_item_of_a_batch_that_kills_costs_only_itself(serve):
    server = serve("""
        import os

        class Batched(ls.LitAPI):
            def predict(self, xs):
                if 5 in xs:
                    os._exit(3)
                return xs

        if __name__ == "__main__":
            ls.LitServer(Batched(max_batch_size=8, batch_timeout=0.5)).run(port=0)
    """)
    with ThreadPoolExecutor(8) as pool:
        responses = [*pool.map(lambda x: server.post("/predict", json=x), range(8))]
    assert [r.status_code for r in responses] == [502 if x == 5 else 200 for x in range(8)]


HANGS = """
    import os, re, time

    class Hangs(ls.LitAPI):
        def predict(self, x):
            if x == "sleep" and not os.path.exists("slept"):
                open("slept", "w").close()
                time.sleep(600)
            if x == "regex":
                re.match(r"(a+)+b", "a" * 40)
            return x

    class Square(ls.LitAPI):
        def predict(self, x):
            return x * x

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Hangs(), path="/hangs", heartbeat=0.3),
            ls.LitServer(Square(), path="/square", heartbeat=0.3),
            port=0,
        )
"""


def test_a_stopped_worker_is_found_and_replaced(serve, tmp_path):
    server = serve(HANGS)
    before = server.workers()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.post, "/hangs", json="sleep")
        wait_until((tmp_path / "slept").exists)
        server.wait_for_line("/hangs#0: ready after")
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        # The first was computing; the other was idle, and has to be found too.
        assert call.result().json() == "sleep"
        assert time.monotonic() - begin < 15
    wait_until(lambda: len(server.workers()) == 2 and not set(before) & set(server.workers()))
    wait_until(lambda: not any(map(is_alive, before)))
    wait_until(lambda: server.client.get("/health").status_code == 200)
    assert server.post("/square", json=3).json() == 9
    for endpoint in ("/hangs", "/square"):
        server.wait_for_line(f"{endpoint}#0: gone")


def test_a_call_that_never_lets_python_run_is_found(serve):
    server = serve(HANGS)
    before = server.workers()
    begin = time.monotonic()
    response = server.post("/hangs", json="regex")
    assert response.status_code == 502
    assert time.monotonic() - begin < 20
    assert server.post("/square", json=3).json() == 9
    wait_until(lambda: len(server.workers()) == 2)
    assert len(set(before) & set(server.workers())) == 1, "the other endpoint keeps its worker"
    wait_until(lambda: server.client.get("/health").status_code == 200)
    assert server.post("/hangs", json="fine").json() == "fine"


def test_a_model_that_can_no_longer_be_loaded_is_refused_until_it_can(
    serve, litplex, runtime, tmp_path
):
    server = serve(
        env=runtime,
        text="""
        import os

        class Fails(ls.LitAPI):
            def setup(self, device):
                if os.path.exists("flag"):
                    raise RuntimeError("the weights are gone")
            def predict(self, x):
                if x == "exit":
                    os._exit(3)
                return x

        class Square(ls.LitAPI):
            def predict(self, x):
                return x * x

        if __name__ == "__main__":
            ls.run_servers(
                ls.LitServer(Fails(), path="/fails"), ls.LitServer(Square(), path="/square"), port=0
            )
    """,
    )
    assert server.post("/fails", json=1).json() == 1
    flag = tmp_path / "flag"
    flag.touch()
    lost = server.post("/fails", json="exit")
    assert lost.status_code in (502, 503)
    server.wait_for_line("RuntimeError: the weights are gone")

    # It backs off: the longer it fails, the longer.
    def is_down():
        return server.post("/fails", json=1, headers={"X-Request-Timeout": "9"}).status_code == 503

    wait_until(is_down)
    server.wait_for_line(r"/fails#0: gone: .*the weights are gone.*; another starts in [1-9]")
    begin = time.monotonic()
    refused = server.post("/fails", json=1)
    assert time.monotonic() - begin < 1.5
    assert refused.status_code == 503
    assert re.fullmatch(r"[1-9]\d*", refused.headers["retry-after"])
    says = "no worker of this endpoint is running: its model cannot be loaded"
    assert refused.json() == {"detail": says}
    health = server.client.get("/health")
    assert health.status_code == 503
    assert health.text == "not ready\n/fails: its model cannot be loaded"
    for page in ("/", "/info", "/readyz", "/health", "/metrics"):
        assert "weights" not in server.client.get(page).text, page
    assert "the weights are gone" in litplex("ps")[1]
    assert [server.post("/square", json=n).json() for n in range(20)] == [n * n for n in range(20)]

    flag.unlink()
    wait_until(lambda: server.client.get("/health").status_code == 200)
    assert server.post("/fails", json=1).json() == 1
    assert server.stop() == 0


HONEST = """
    import ctypes, os, time

    # Sleeps in C without giving the interpreter away.
    sleep = ctypes.PyDLL(None).usleep

    class Holds(ls.LitAPI):
        def predict(self, seconds):
            sleep(int(seconds * 1e6))
            return os.getpid()

    class Environment(ls.LitAPI):
        def predict(self, x):
            return sorted(name for name in os.environ if name.endswith("_KEY"))

    class Batch(ls.LitAPI):
        def predict(self, xs):
            time.sleep(max(xs))
            return [os.getpid() for _ in xs]

    class Stream(ls.LitAPI):
        def predict(self, seconds):
            yield os.getpid()
            time.sleep(seconds)
            yield os.getpid()

    if __name__ == "__main__":
        times = {"timeout": 6, "kill_after": 1}
        keys = {"me": "env:OPS_KEY"}
        ls.run_servers(
            ls.LitServer(Holds(), path="/holds", **times),
            ls.LitServer(Batch(max_batch_size=4, batch_timeout=0.2), path="/batch", **times),
            ls.LitServer(Stream(stream=True), path="/stream", **times),
            ls.LitServer(Environment(), path="/environment"),
            ls.LitServer(Environment(), path="/guarded", api_keys=keys),
            port=0,
        )
"""


def test_long_calls_and_short_budgets_of_clients_cost_no_worker(serve):
    keys = {"OPS_KEY": "a" * 20, "LIT_SHUTDOWN_API_KEY": "b" * 20, "HOOKS_KEY": "c" * 20}
    server = serve(HONEST, env=keys)
    workers = sorted(server.workers())
    hurried = {"X-Request-Timeout": "0.3"}
    with ThreadPoolExecutor(8) as pool:
        # The interpreter is silent for longer than three heartbeats of 2 s would allow.
        held = pool.submit(server.post, "/holds", json=5.5)
        given_up = [
            pool.submit(server.post, "/batch", json=4, headers=hurried),
            pool.submit(server.post, "/stream", json=4, headers=hurried),
        ]
        beside = pool.submit(server.post, "/batch", json=4)
        assert pool.submit(server.post, "/environment", json=1).result().json() == ["HOOKS_KEY"]
        assert given_up[0].result().status_code == 504
        assert given_up[1].result().status_code in (200, 504)
        with server.client.stream("POST", "/stream", json=4) as left:
            assert next(left.iter_lines())
        answers = [held.result(), beside.result()]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.json() for answer in answers} <= set(workers)
    wait_until(lambda: server.post("/stream", json=0).status_code == 200)
    assert sorted(server.workers()) == workers
    assert ": gone: " not in server.output


def test_a_wish_is_a_time_or_refused(serve):
    server = serve(f"{CRASHES}\n    serve()")

    def ask(wish):
        return server.post("/square", json=2, headers={"X-Request-Timeout": wish})

    for wish in ("0", "-1", "nan", "inf", "soon", ""):
        refused = ask(wish)
        assert refused.status_code == 400, wish
        assert "`X-Request-Timeout` must be a number of seconds" in refused.json()["detail"]
    for wish in ("1e300", "9.5"):
        assert ask(wish).json() == 4, wish
