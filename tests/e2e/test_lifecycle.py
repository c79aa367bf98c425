"""Starting, failing, stopping, dying."""

import contextlib
import os
import signal
import sys
import threading
import time

import httpx
import pytest
from conftest import LITPLEX, Server, descendants, is_alive, parent_of, wait_until

SLEEPER = """
    import time

    class Sleeper(ls.LitAPI):
        def predict(self, seconds):
            time.sleep(seconds)
            return "slept"
        def teardown(self):
            print("torn down")

    class Square(ls.LitAPI):
        def predict(self, x):
            return x * x

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Sleeper(), path="/sleep", workers_per_device=2),
            ls.LitServer(Square(), path="/square"),
            port=0,
        )
        print("the program goes on")
"""


class Call(threading.Thread):
    """A request in flight; it has no response when the connection breaks."""

    def __init__(self, server, path, body):
        super().__init__()
        self.args = (f"{server.url}{path}", body)
        self.response = None
        self.start()

    def run(self):
        url, body = self.args
        with contextlib.suppress(httpx.HTTPError):
            self.response = httpx.post(url, json=body, timeout=30)

    def result(self):
        self.join(30)
        return self.response


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_requests_finish_and_ends_everything(serve, number):
    server = serve(SLEEPER)
    workers = server.workers()
    assert len(workers) == 3
    call = Call(server, "/sleep", 1)
    server.wait_for_request("/sleep")
    server.signal(number)
    assert call.result().json() == "slept"
    assert server.wait() == 0
    assert "the program goes on" in server.lines
    assert server.output.count("| torn down") == 2
    assert "Traceback" not in server.output
    assert not any(map(is_alive, workers))


def test_a_signal_to_every_process_lets_requests_finish_too(serve):
    """A service manager does that, and the program passes its own signal on."""
    server = serve(SLEEPER)
    call = Call(server, "/sleep", 1)
    server.wait_for_request("/sleep")
    for pid in [*descendants(server.process.pid), server.process.pid]:
        os.kill(pid, signal.SIGTERM)
    assert call.result().json() == "slept"
    assert server.wait() == 0


def test_a_second_signal_stops_at_once(serve):
    server = serve(SLEEPER)
    workers = server.workers()
    call = Call(server, "/sleep", 600)
    server.wait_for_request("/sleep")
    server.signal(signal.SIGINT)
    server.wait_for_line("stopping; requests in flight")
    # Signals that are closer together mean one thing.
    time.sleep(0.6)
    server.signal(signal.SIGINT)
    server.wait_for_line("stopping at once")
    server.wait()
    assert call.result() is None
    wait_until(lambda: not any(map(is_alive, workers)))


@pytest.mark.parametrize("victim", ["program", "server"])
def test_no_worker_outlives_what_started_it(serve, victim):
    server = serve(SLEEPER)
    workers = server.workers()
    parent = parent_of(workers[0])
    call = Call(server, "/sleep", 600)
    server.wait_for_request("/sleep")
    os.kill(server.process.pid if victim == "program" else parent, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, [*workers, parent])))
    assert call.result() is None or call.result().status_code in (502, 503)


def test_a_request_that_kills_its_workers_costs_no_other_request(serve):
    server = serve("""
        import os

        class Dies(ls.LitAPI):
            def predict(self, how):
                if how == "exit":
                    os._exit(3)
                return how

        class Square(ls.LitAPI):
            def predict(self, x):
                return x * x

        ls.run_servers(
            ls.LitServer(Dies(), path="/dies"), ls.LitServer(Square(), path="/square"), port=0
        )
    """)
    response = server.post("/dies", json="exit")
    assert response.status_code == 502
    assert "2 workers died" in response.json()["detail"]
    server.wait_for_line("/dies#0: gone: its process exited with status 3")
    assert server.post("/square", json=3).json() == 9
    wait_until(lambda: server.client.get("/health").status_code == 200)
    assert server.post("/dies", json="live").json() == "live"
    assert server.stop() == 0


def test_a_killed_worker_is_reported_with_its_signal_and_replaced(serve):
    server = serve(SLEEPER)
    call = Call(server, "/sleep", 1)
    server.wait_for_request("/sleep")
    workers = server.workers()
    os.kill(workers[0], signal.SIGKILL)
    assert call.result().json() == "slept"
    server.wait_for_line("killed by signal 9")
    wait_until(lambda: len(server.workers()) == len(workers))
    assert workers[0] not in server.workers()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def setup(self, device): raise RuntimeError('no weights')", "setup raised RuntimeError"),
        ("def setup(self, device): __import__('os')._exit(7)", "exited with status 7 before"),
        ("def setup(self, device): self.max_concurrency = 8", "`max_concurrency` of 8 needs async"),
    ],
)
def test_a_setup_that_fails_ends_the_server_with_one_traceback(serve, body, says):
    server = serve(
        f"""
        class Fine(ls.LitAPI):
            def predict(self, x):
                return x

        class Fails(Fine):
            {body}

        ls.run_servers(
            ls.LitServer(Fine(), path="/fine"), ls.LitServer(Fails(), path="/fails"), port=0
        )
        """,
        ready=False,
    )
    assert server.wait() == 3
    assert f"endpoint `/fails`: {'its process ' if 'exited' in says else ''}{says}" in server.output
    assert server.output.count("Traceback") == (1 if "RuntimeError" in says else 0)
    assert server.output.count(says) == 1
    assert "in setup" in server.output or "RuntimeError" not in says


def test_a_model_that_cannot_serve_is_refused_before_anything_starts(run, script):
    program = script(
        """
        class Yields(ls.LitAPI):
            def predict(self, x):
                yield x

        ls.LitServer(Yields(), path="/yields").run(port=0)
        """
    )
    refused = run([sys.executable, program])
    assert refused.wait() == 1
    assert "endpoint `/yields`: `predict` is a generator; set stream=True" in refused.output
    assert "Traceback" not in refused.output
    assert ": loading" not in refused.output


def test_a_second_server_on_the_same_port_is_refused_before_any_start(serve, script, run):
    server = serve(SLEEPER)
    port = server.url.rpartition(":")[2]
    text = SLEEPER.replace("port=0", f"port={port}").replace(
        "def teardown", "def setup(self, d): print('loaded')\n        def teardown"
    )
    second = run([sys.executable, script(text, "second.py")])
    assert second.wait() == 1
    pid = parent_of(server.workers()[0])
    assert f"another litplex server (pid {pid}) listens there" in second.output
    assert "loaded" not in second.output
    assert server.post("/square", json=3).json() == 9


def test_requests_before_a_model_is_ready_read_when_to_retry(serve):
    server = serve(
        """
        import time

        class Slow(ls.LitAPI):
            def setup(self, device):
                time.sleep(2)
            def predict(self, x):
                return x

        ls.LitServer(Slow()).run(port=0)
        """,
        ready=False,
    ).wait_until_listening()
    early = server.post("/predict", json=1)
    assert (early.status_code, early.headers["retry-after"]) == (503, "1")
    assert server.client.get("/health").status_code == 503
    server.wait_until_ready()
    assert server.post("/predict", json=1).json() == 1


def test_each_output_line_of_a_worker_is_marked(serve):
    server = serve("""
        import sys

        class Prints(ls.LitAPI):
            def setup(self, device):
                print("on", device)
                print("to stderr", file=sys.stderr)
            def predict(self, x):
                print("x" * 40_000)
                return x

        ls.LitServer(Prints(), path="/prints", accelerator="cpu").run(port=0)
    """)
    server.wait_for_line(r"^\S+Z /prints#0 \| on cpu$")
    server.wait_for_line(r"^\S+Z /prints#0 \| to stderr$")
    assert server.post("/prints", json=1).json() == 1
    server.wait_for_line(r"^\S+Z /prints#0 \| x{1000}")


def test_litplex_serve_is_stopped_by_a_signal(run, script):
    script(SLEEPER)
    server = run([LITPLEX, "serve", "server.py", "--port", "0"], kind=Server).wait_until_ready()
    assert server.post("/square", json=5).json() == 25
    assert server.stop() == 0


HEALTH = """
    import os

    class Moody(ls.LitAPI):
        def setup(self, device):
            open("well", "w").close()

        {hook}
            if os.path.exists("broken"):
                raise OSError("the disk is gone")
            return os.path.exists("well")

        {predict}
            return x

    ls.LitServer(Moody(), heartbeat=0.2).run(port=0)
"""


@pytest.mark.parametrize(
    ("hook", "predict"),
    [
        ("def health(self):", "def predict(self, x):"),
        ("async def health(self):", "async def predict(self, x):"),
        ("async def health(self):", "def predict(self, x):"),
    ],
)
def test_the_health_of_a_model_is_checked_again_and_again(serve, tmp_path, hook, predict):
    server = serve(HEALTH.format(hook=hook, predict=predict))

    def health():
        return server.client.get("/health").text

    assert health() == "ok"
    (tmp_path / "well").unlink()
    wait_until(lambda: health() == "not ready\n/predict: `health` of a worker is false")
    assert server.post("/predict", json=1).json() == 1
    (tmp_path / "well").touch()
    wait_until(lambda: health() == "ok")
    (tmp_path / "broken").touch()
    wait_until(lambda: health() != "ok")
    server.wait_for_line("OSError: the disk is gone")
