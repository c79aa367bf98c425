"""Endpoints that sleep: without workers, until a request comes."""

import asyncio
import time

import httpx
from conftest import PATIENCE

SERVER = """
    import time

    class Echo(ls.LitAPI):
        def setup(self, device):
            time.sleep(1)
        def predict(self, x):
            return x

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Echo(), path="/fixed"),
            ls.LitServer(Echo(), path="/sleepy", min_workers=0, max_workers=2, keep_alive=1),
            port=0,
        )
"""


def test_an_idle_endpoint_sleeps_and_is_woken_by_a_request(serve):
    server = serve(SERVER)
    # It is not loaded at the start.
    assert len(server.workers()) == 1
    assert server.client.get("/health").status_code == 200

    # One that cannot wait for the start is refused at once, with the time that it takes.
    begin = time.monotonic()
    hasty = server.post("/sleepy", json=1, headers={"X-Request-Timeout": "0.3"})
    assert (hasty.status_code, int(hasty.headers["retry-after"]) >= 1) == (503, True)
    assert time.monotonic() - begin < 10

    async def post():
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            return await asyncio.gather(*(client.post("/sleepy", json=n) for n in range(50)))

    answers = asyncio.run(post())
    assert [(a.status_code, a.json()) for a in answers] == [(200, n) for n in range(50)]
    server.wait_for_line("asleep after 1s without a request")
    assert server.stop() == 0
