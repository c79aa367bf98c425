"""What workers take of the memory of a real GPU."""

import pytest

pytestmark = pytest.mark.gpu

HOLDS = """
    import os
    import torch

    class Holds(ls.LitAPI):
        def setup(self, device):
            self.total = torch.cuda.get_device_properties(device).total_memory

        def predict(self, share):
            size = int(self.total * share)
            held = torch.empty(size, dtype=torch.uint8, device=self.device)
            seen = os.environ.get("CUDA_VISIBLE_DEVICES")
            return [held.numel() == size, str(held.device), torch.cuda.device_count(), seen]

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


def test_two_endpoints_share_a_gpu_and_each_keeps_to_its_share(serve):
    server = serve(f"{HOLDS}\n    serve(0.3, 0.5)")
    assert server.post("/small", json=0.2).json()[:2] == [True, "cuda:0"]
    assert server.post("/small", json=0.4).status_code == 500
    server.wait_for_line("/small#0 .*OutOfMemoryError")
    assert server.post("/large", json=0.4).json()[0] is True
    assert server.post("/small", json=0.2).json()[0] is True
    assert "is gone" not in server.output


def test_an_isolated_worker_has_the_one_gpu(serve):
    server = serve(f"{HOLDS}\n    serve(0.3, 0.5)")
    _, device, count, seen = server.post("/large", json=0.01).json()
    assert (device, count, seen.count(",")) == ("cuda:0", 1, 0)


def test_shares_that_are_more_than_the_gpu_are_refused(serve):
    server = serve(f"{HOLDS}\n    serve(0.6, 0.5)", ready=False)
    assert server.wait() == 2
    assert "`gpu_memory_fraction` on cuda:0 adds up to 1.1" in server.output
