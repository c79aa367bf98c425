"""Workers that hibernate: stopped, with their memory in swap, until a request wakes them."""

import os
import re
import signal
from pathlib import Path

import pytest
from conftest import wait_until

MEGABYTES = 100


def free_swap():
    """Returns the bytes of swap that are free on this machine."""
    found = re.search(r"SwapFree: +(\d+)", Path("/proc/meminfo").read_text())
    return int(found[1]) * 1024 if found else 0


needs_swap = pytest.mark.skipif(
    free_swap() < 4 * MEGABYTES << 20, reason="needs swap, and this machine has too little"
)

MODELS = """
    import os

    class Counts(ls.LitAPI):
        def __init__(self, megabytes=100):
            super().__init__()
            self.megabytes, self.count = megabytes, 0

        def setup(self, device):
            self.seen = self.counter("seen", "Calls of the model.")
            self.gauge("megabytes", "The size of the model.").set(self.megabytes)
            self.data = [bytearray(os.urandom(1 << 20)) for _ in range(self.megabytes)]

        def predict(self, x):
            self.count += 1
            self.seen.add(1)
            return {"pid": os.getpid(), "count": self.count, "sum": sum(map(len, self.data))}

        def teardown(self):
            print("torn down after", self.count)

    class Asks(ls.LitAPI):
        async def predict(self, x):
            return await ls.endpoint("/echo").acall(x)

    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    class Streams(ls.LitAPI):
        def predict(self, x):
            yield from range(x)
"""

ASLEEP = "min_workers=0, max_workers=1, keep_alive='auto', preload=[], hibernate=True"


def program(*servers, options=""):
    text = "".join(f"ls.LitServer({model}, path='{path}', {ASLEEP}), " for path, model in servers)
    return f"""{MODELS}
    if __name__ == "__main__":
        ls.run_servers({text} ls.LitServer(Echo(), path="/echo"), port=0, {options})
"""


@pytest.fixture
def scale(runtime, litplex):
    """Returns a function that sets the number of an endpoint's workers."""

    def to(path, workers):
        status, _, err = litplex("scale", path, workers)
        assert status == 0, err

    return to


def process_state(process):
    stat = Path(f"/proc/{process}/stat").read_text()
    return stat.rsplit(")", 1)[1].split()[0]


def swapped(process):
    """Returns the bytes of a process that are in swap."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmSwap:\s+(\d+)", status)
    assert found
    return int(found[1]) * 1024


def metric(server, name, path):
    text = server.client.get("/metrics").text
    found = re.search(rf'^{name}{{endpoint="{path}"[^}}]*}} (\S+)', text, re.MULTILINE)
    return found and float(found[1])


def asleep(server, process):
    """Waits until a worker hibernates."""
    wait_until(lambda: process_state(process) == "T")
    server.wait_for_line(r"hibernates: [\d.]+ .B of 1\d\d.\d MB are left in memory")


@needs_swap
def test_a_worker_that_sleeps_is_woken_with_its_state(serve, runtime, scale, litplex):
    server = serve(program(("/counts", "Counts()")), env=runtime)
    first = server.post("/counts", json=0).json()
    for round in (2, 3):
        scale("/counts", "0")
        asleep(server, first["pid"])
        assert swapped(first["pid"]) > MEGABYTES / 2 * 1e6
        _, out, err = litplex("ps")
        assert re.search(r"/counts .*asleep \(hibernated\)", out), out + err
        assert 'litplex_endpoint_tier{endpoint="/counts",tier="hibernated"} 1' in (
            server.client.get("/metrics").text
        )
        info = server.client.get("/info").json()["endpoints"]
        assert [it["tier"] for it in info if it["path"] == "/counts"] == ["hibernated"]
        assert server.post("/counts", json=0).json() == {**first, "count": round}
    wait_until(lambda: metric(server, "litplex_worker_wakes_total", "/counts") == 2)
    # What the model counts is still reported.
    wait_until(lambda: metric(server, "litplex_user_seen_total", "/counts"))
    # And what it has told once.
    wait_until(lambda: metric(server, "litplex_user_megabytes", "/counts") == MEGABYTES)
    scale("/counts", "0")
    asleep(server, first["pid"])
    assert server.stop() == 0
    assert "torn down after 3" in server.output
    assert not Path(f"/proc/{first['pid']}").exists()


@needs_swap
def test_a_worker_that_dies_while_it_hibernates_is_loaded_again(serve, runtime, scale):
    server = serve(program(("/counts", "Counts()")), env=runtime)
    first = server.post("/counts", json=0).json()
    scale("/counts", "0")
    asleep(server, first["pid"])
    os.kill(first["pid"], signal.SIGKILL)
    server.wait_for_line("/counts: gone while it hibernated: its process was killed by signal 9")
    again = server.post("/counts", json=0).json()
    assert again["count"] == 1
    assert again["pid"] != first["pid"]


@needs_swap
def test_an_operator_ends_what_hibernates(serve, runtime, scale):
    server = serve(program(("/counts", "Counts()")), env=runtime)
    first = server.post("/counts", json=0).json()
    scale("/counts", "0")
    asleep(server, first["pid"])
    scale("/counts", "cold")
    wait_until(lambda: not Path(f"/proc/{first['pid']}").exists())
    server.wait_for_line("torn down after 1")
    assert server.post("/counts", json=0).json()["count"] == 1
    scale("/counts", "cold")
    wait_until(lambda: server.output.count("torn down after 1") == 2)


@needs_swap
def test_models_take_turns_by_hibernation_within_a_budget(serve, runtime):
    paths = ["/a", "/b", "/c"]
    servers = [(path, "Counts()") for path in paths]
    server = serve(program(*servers, options='memory_budget="300MB"'), env=runtime)
    first = {path: server.post(path, json=0).json() for path in paths}
    for path in paths:
        again = server.post(path, json=0).json()
        assert (again["pid"], again["count"]) == (first[path]["pid"], 2), "it is the same worker"
    held = metric_of_place(server, "litplex_memory_held_bytes")
    assert held <= metric_of_place(server, "litplex_memory_budget_bytes") == 300e6
    assert server.stop() == 0
    assert server.output.count("torn down after 2") == 3


def metric_of_place(server, name):
    text = server.client.get("/metrics").text
    found = re.search(rf'{name}{{place="host"}} (\S+)', text)
    return found and float(found[1])


@needs_swap
def test_calls_and_streams_go_on_after_a_wake(serve, runtime, scale):
    server = serve(program(("/asks", "Asks()"), ("/streams", "Streams(stream=True)")), env=runtime)
    for _ in range(2):
        assert server.post("/asks", json=5).json() == 5
        assert server.post("/streams", json=3).text.split() == ["0", "1", "2"]
        workers = [pid for pid in server.workers() if process_state(pid) != "T"]
        assert len(workers) == 3
        for path in ("/asks", "/streams"):
            scale(path, "0")
        wait_until(lambda: sum(process_state(pid) == "T" for pid in server.workers()) == 2)


@needs_swap
def test_a_model_is_validated_with_its_hibernation(serve, runtime, litplex):
    server = serve(program(("/streams", "Streams(stream=True)")), env=runtime)
    status, out, err = litplex("validate", "/streams", "3")
    assert status == 0, err
    assert re.search(r"hibernate +\S+ +-[\d.]+ MB\nrequest that wakes it +\S+ +the same", out), out
    assert server.stop() == 0


@needs_swap
def test_a_worker_that_hibernates_outlives_a_refusal(serve, runtime, scale):
    servers = [(path, "Counts()") for path in ("/a", "/b", "/c")]
    server = serve(program(*servers, options='memory_budget="300MB"'), env=runtime)
    first = server.post("/a", json=0).json()
    scale("/a", "0")
    asleep(server, first["pid"])
    for path in ("/b", "/c"):
        server.post(path, json=0)
        # Those of a fixed number stay.
        scale(path, "1")
    refused = server.post("/a", json=0)
    assert (refused.status_code, "does not fit into memory" in refused.text) == (503, True)
    assert process_state(first["pid"]) == "T"
    scale("/b", "cold")
    again = wait_until(lambda: (it := server.post("/a", json=0)).status_code == 200 and it.json())
    assert again == {**first, "count": 2}
    # It counts once it was measured.
    wait_until(lambda: metric(server, "litplex_worker_wakes_total", "/a") == 1)
    assert metric(server, "litplex_worker_loads_total", "/a") == 1
