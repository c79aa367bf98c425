"""Workers on a real GPU: their memory, and their hibernation."""

import subprocess
import sys

import pytest
from conftest import wait_until
from prometheus_client.parser import text_string_to_metric_families
from test_hibernation import needs_swap, process_state

pytestmark = pytest.mark.gpu

HOLDS = """
    import os
    import torch

    class Holds(ls.LitAPI):
        def setup(self, device):
            self.total = torch.cuda.get_device_properties(device).total_memory

        def predict(self, share):
            size = int(self.total * share)
            self.held = None
            self.held = torch.empty(size, dtype=torch.uint8, device=self.device)
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            is_whole = self.held.numel() == size
            return [is_whole, str(self.held.device), torch.cuda.device_count(), seen]

    def serve(small, large):
        if __name__ == "__main__":
            ls.run_servers(
                ls.LitServer(Holds(), path="/small", gpu_memory_fraction=small, devices=[0]),
                ls.LitServer(
                    Holds(),
                    path="/large",
                    gpu_memory_fraction=large,
                    devices=[0],
                    isolate_devices=True,
                ),
                port=0,
            )
"""


def total_memory():
    """Returns the bytes of the first GPU, asked in a process that then leaves it."""
    ask = "import torch; print(torch.cuda.get_device_properties(0).total_memory)"
    return int(subprocess.run([sys.executable, "-c", ask], check=True, stdout=-1).stdout)


def read(server, name):
    """Returns the labels and the value of each sample of a metric."""
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return [(sample.labels, sample.value) for sample in samples if sample.name == name]


def measured(serve):
    """Returns a server whose endpoints hold 0.1 and 0.2 of the GPU, and the GPU's bytes."""
    server = serve(f"{HOLDS}\n    serve(0.3, 0.5)")
    total = total_memory()
    for path, share in [("/small", 0.1), ("/large", 0.2)]:
        assert server.post(path, json=share).json()[0] is True
    # The first page may come before the driver is loaded.
    wait_until(lambda: read(server, "litplex_gpu_memory_total_bytes"))
    return server, total


def by_endpoint(server, name):
    return {labels["endpoint"]: value for labels, value in read(server, name)}


def test_two_endpoints_share_a_gpu_and_each_keeps_to_its_share(serve):
    server = serve(f"{HOLDS}\n    serve(0.3, 0.5)")
    workers = sorted(server.workers())
    assert server.post("/large", json=0.4).json()[0] is True
    assert server.post("/small", json=0.2).json()[:2] == [True, "cuda:0"]
    # More than its share, and there is more on the GPU.
    assert server.post("/small", json=0.35).status_code == 500
    server.wait_for_line("/small#0 .*OutOfMemoryError")
    assert server.post("/large", json=0.55).status_code == 500
    server.wait_for_line("/large#0 .*OutOfMemoryError")
    # It failed in its own worker, which goes on; the other never noticed.
    assert server.post("/small", json=0.2).json()[0] is True
    assert server.post("/large", json=0.4).json()[0] is True
    assert ": gone: " not in server.output
    assert sorted(server.workers()) == workers


def test_the_use_of_workers_and_gpus_is_on_metrics(serve):
    server, total = measured(serve)
    limits = by_endpoint(server, "litplex_worker_gpu_memory_limit_bytes")
    # The driver counts its own memory, and CUDA does not.
    assert limits == {
        "/small": pytest.approx(0.3 * total, rel=0.05),
        "/large": pytest.approx(0.5 * total, rel=0.05),
    }
    gpus = [labels for labels, _ in read(server, "litplex_gpu_memory_used_bytes")]
    assert "0" in {labels["gpu"] for labels in gpus}
    assert all(labels["uuid"].startswith("GPU-") for labels in gpus)
    (used,) = [
        value
        for labels, value in read(server, "litplex_gpu_memory_used_bytes")
        if labels["gpu"] == "0"
    ]
    assert used > 0.3 * total
    for _, share in read(server, "litplex_gpu_utilization_ratio"):
        assert 0 <= share <= 1


def test_the_use_of_each_worker_is_measured(serve):
    server, total = measured(serve)
    used = by_endpoint(server, "litplex_worker_gpu_memory_bytes")
    if not used:
        pytest.skip("the driver does not name processes by the numbers that they have here")
    assert 0.1 * total < used["/small"] < 0.2 * total < used["/large"] < 0.3 * total


def test_an_isolated_worker_has_the_one_gpu(serve):
    server = serve(f"{HOLDS}\n    serve(0.3, 0.5)")
    _, device, count, seen = server.post("/large", json=0.01).json()
    assert (device, count, seen.count(",")) == ("cuda:0", 1, 0)


def test_shares_that_are_more_than_the_gpu_are_refused(serve):
    server = serve(f"{HOLDS}\n    serve(0.6, 0.5)", ready=False)
    assert server.wait() == 2
    assert "`gpu_memory_fraction` on cuda:0 adds up to 1.1" in server.output


SLEEPS = """
    import os
    import torch

    class Sleeps(ls.LitAPI):
        def setup(self, device):
            torch.manual_seed(1)
            self.held = torch.rand(1 << 26, device=device)
            self.count = 0

        def predict(self, x):
            self.count += 1
            return [os.getpid(), self.count, (self.held * x).sum().item()]

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(
                Sleeps(), path="/sleeps", devices=[0], min_workers=0, max_workers=1,
                hibernate=True, preload=[], keep_alive="auto",
            ),
            port=0,
        )
"""


@needs_swap
def test_a_worker_hibernates_without_memory_of_the_gpu_and_answers_as_before(
    serve, runtime, litplex
):
    server = serve(SLEEPS, env=runtime)
    process, count, total = server.post("/sleeps", json=2).json()
    for round in (2, 3):
        assert litplex("scale", "/sleeps", "0")[0] == 0
        wait_until(lambda: process_state(process) == "T")
        line, times = "/sleeps: hibernates: ", round - 1
        wait_until(lambda line=line, times=times: server.output.count(line) == times)
        used = by_endpoint(server, "litplex_worker_gpu_memory_bytes")
        assert not used.get("/sleeps")
        assert server.post("/sleeps", json=2).json() == [process, count - 1 + round, total]
    assert server.stop() == 0
