"""Endpoints that share cores take turns, and requests have priority classes."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import wait_until

MODELS = f"""
    import os
    import time

    CORE = [{min(os.sched_getaffinity(0))}]

    def burn(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    def state(process):
        with open(f"/proc/{{process}}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]

    class Slow(ls.LitAPI):
        def predict(self, seconds):
            burn(seconds)
            return os.getpid()

    class Fast(ls.LitAPI):
        def predict(self, process):
            burn(0.005)
            return state(process)

    def serve(**options):
        if __name__ == "__main__":
            own = dict(cpu_affinity=CORE, accelerator="cpu", device_weight=1)
            ls.run_servers(
                # A lost request that is computed again would hold the core for as long once more.
                ls.LitServer(Slow(), path="/slow", idempotent=False, **own),
                ls.LitServer(Fast(), path="/fast", **own),
                port=0, **options,
            )
"""

#: The CPU time of a slow request in seconds: it ends in any case.
LONG = 20


class SlowRequest(threading.Thread):
    """A slow request, whose worker is interrupted while it computes."""

    def __init__(self, server):
        super().__init__()
        self.server, self.status = server, None
        self.worker = server.post("/slow", json=0).json()

    def run(self):
        self.status = self.server.post("/slow", json=LONG, timeout=120).status_code

    def state(self):
        return self.server.post("/fast", json=self.worker, timeout=30).json()

    def kill(self):
        os.kill(self.worker, signal.SIGKILL)


@pytest.fixture
def busy(serve):
    """Returns a function that serves both models while the slow one computes."""
    begun = []

    def start(options):
        server = serve(f"{MODELS}\n    serve({options})")
        slow = SlowRequest(server)
        slow.start()
        begun.append(slow)
        wait_until(lambda: in_flight(server, "/slow") == 1)
        return server, slow

    yield start
    for slow in begun:
        if slow.is_alive():
            slow.kill()
        slow.join()


def metric(server, name, **labels):
    wanted = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    for line in server.client.get("/metrics").text.splitlines():
        series, _, value = line.rpartition(" ")
        if (
            series.startswith(f"{name}{{")
            and ",".join(sorted(series[len(name) + 1 : -1].split(","))) == wanted
        ):
            return float(value)
    return None


def in_flight(server, path):
    return metric(server, "litplex_worker_inflight_requests", endpoint=path, worker="0")


def test_a_worker_is_interrupted_for_the_turn_of_another(busy):
    server, slow = busy("")
    wait_until(lambda: slow.state() == "T")
    used = metric(server, "litplex_device_seconds_total", endpoint="/slow", device="cpu")
    held = metric(server, "litplex_worker_busy_seconds_total", endpoint="/slow", worker="0")
    assert 0 < used < held
    assert metric(server, "litplex_device_seconds_total", endpoint="/fast", device="cpu") > 0
    wait_until(lambda: process_state(slow.worker) != "T")


def process_state(process):
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_a_worker_that_dies_while_it_is_interrupted_gives_its_turn_back(busy):
    server, slow = busy("")
    wait_until(lambda: slow.state() == "T")
    slow.kill()
    wait_until(lambda: server.post("/slow", json=0).status_code == 200)
    assert server.post("/fast", json=os.getpid()).status_code == 200


def test_without_a_limit_no_worker_is_interrupted(busy):
    _, slow = busy("device_concurrency=False")
    assert {slow.state() for _ in range(50)}.isdisjoint({"T"})


def test_a_limit_of_workers_holds_for_models_that_only_wait(serve, tmp_path):
    gate = tmp_path / "gate"
    server = serve(
        f"""
    import os
    import time

    def state(process):
        with open(f"/proc/{{process}}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]

    class Waits(ls.LitAPI):
        def predict(self, waits):
            while waits and not os.path.exists({str(gate)!r}):
                time.sleep(0.01)
            return os.getpid()

    class Looks(ls.LitAPI):
        def predict(self, process):
            return state(process)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Waits(), path="/slow", accelerator="cpu"),
            ls.LitServer(Looks(), path="/fast", accelerator="cpu"),
            port=0,
            device_concurrency=1,
        )
    """
    )
    process = server.post("/slow", json=False).json()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.post, "/slow", json=True)
        wait_until(lambda: in_flight(server, "/slow") == 1)
        try:
            # A process stops when it next gets a core.
            wait_until(lambda: server.post("/fast", json=process).json() == "T")
        finally:
            gate.touch()
        assert slow.result().status_code == 200
    wait_until(lambda: server.post("/fast", json=process).json() != "T")


def test_the_priority_of_a_request_is_one_of_two_classes(serve):
    server = serve(f"{MODELS}\n    serve()")
    for name, status in (("batch", 200), ("interactive", 200), ("urgent", 400)):
        response = server.post("/slow", json=0, headers={"X-Litplex-Priority": name})
        assert response.status_code == status
    assert '"interactive" or "batch"' in response.json()["detail"]


BY_KEY = 'api_keys={"ann": "env:ANN", "nightly": "env:NIGHTLY"}, batch_callers=["nightly"]'
ANN = {"X-API-Key": "a"}


@pytest.mark.parametrize(
    ("options", "batch", "interactive"),
    [
        ("", {"X-Litplex-Priority": "batch"}, {}),
        # The key decides, whatever the client asks for.
        (BY_KEY, {"X-API-Key": "n", "X-Litplex-Priority": "interactive"}, ANN),
    ],
    ids=["by header", "by key"],
)
def test_interactive_requests_go_before_waiting_batches(
    serve, tmp_path, options, batch, interactive
):
    gate = tmp_path / "gate"
    server = serve(
        f"""
    import os
    import time

    class Waits(ls.LitAPI):
        seen = []

        def predict(self, name):
            if name == "seen":
                return self.seen
            self.seen.append(name)
            while name == "first" and not os.path.exists({str(gate)!r}):
                time.sleep(0.01)
            return name

    if __name__ == "__main__":
        ls.run_servers(ls.LitServer(Waits(), path="/waits", {options}), port=0)
    """,
        env={"ANN": "a", "NIGHTLY": "n"},
    )

    def send(name, headers):
        request = threading.Thread(
            target=server.post, args=("/waits",), kwargs={"json": name, "headers": headers}
        )
        request.start()
        return request

    def queued(number):
        return metric(server, "litplex_queue_depth", endpoint="/waits") == number

    requests = [send("first", interactive)]
    wait_until(lambda: in_flight(server, "/waits") == 1)
    requests.append(send("batch", batch))
    wait_until(lambda: queued(1))
    requests.append(send("interactive", interactive))
    wait_until(lambda: queued(2))
    gate.touch()
    for request in requests:
        request.join()
    seen = server.post("/waits", json="seen", headers=interactive).json()
    assert seen == ["first", "interactive", "batch"]
