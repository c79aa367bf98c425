"""Work that ends at its deadline, and work that must not."""

import asyncio
import json

import httpx
from conftest import PATIENCE

STUCK = """
    import time

    class Stuck(ls.LitAPI):
        def predict(self, x):
            time.sleep(600)

    # Long enough for 300 clients to send their bodies on a busy machine.
    ls.LitServer(Stuck(), timeout=2, kill_after=False).run(port=0)
"""


def test_every_request_past_its_deadline_gets_504(serve):
    server = serve(STUCK)

    async def post():
        async with httpx.AsyncClient(
            base_url=server.url, timeout=PATIENCE, limits=httpx.Limits(max_connections=None)
        ) as client:
            return await asyncio.gather(*(client.post("/predict", json=n) for n in range(300)))

    for _ in range(3):
        answers = [(a.status_code, a.json()["detail"]) for a in asyncio.run(post())]
        assert set(answers) == {(504, "Request timed out")}


def test_a_running_stream_does_not_get_its_worker_killed(serve):
    server = serve("""
        import time

        class Ticks(ls.LitAPI):
            def predict(self, count):
                for n in range(count):
                    yield n
                    time.sleep(0.1)

        ls.LitServer(Ticks(stream=True), timeout=0.5, kill_after=0).run(port=0)
    """)
    before = server.workers()
    answer = server.post("/predict", json=15)
    assert [json.loads(line) for line in answer.text.splitlines()] == [*range(15)]
    assert server.workers() == before


def test_jobs_that_a_dead_worker_had_not_begun_are_computed_even_if_not_idempotent(serve, tmp_path):
    server = serve("""
        import os, time

        class Once(ls.LitAPI):
            def predict(self, x):
                with open("computed", "a") as file:
                    file.write(f"{x}\\n")
                if x == "last words":
                    time.sleep(0.5)
                    os._exit(3)
                return x

        ls.LitServer(Once(), idempotent=False).run(port=0)
    """)
    # The model turns out to be fast, and its worker is given many requests ahead.
    for _ in range(300):
        server.post("/predict", json="warm")
    bodies: list[object] = ["last words", *range(40)]

    async def post():
        async with httpx.AsyncClient(
            base_url=server.url, timeout=PATIENCE, limits=httpx.Limits(max_connections=None)
        ) as client:
            return await asyncio.gather(*(client.post("/predict", json=body) for body in bodies))

    lost, *others = asyncio.run(post())
    computed = (tmp_path / "computed").read_text().splitlines()
    assert (lost.status_code, computed.count("last words")) == (502, 1)
    assert [(a.status_code, computed.count(str(n))) for n, a in enumerate(others)] == [
        (200, 1)
    ] * 40
