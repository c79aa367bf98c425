"""Batches: which requests form one, and the response of each."""

import asyncio
import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import PATIENCE, wait_until

LENGTHS = """
    import os, time

    class Lengths(ls.LitAPI):
        def predict(self, requests):
            lengths = [len(request["text"]) for request in requests]
            with open("batches", "a") as file:
                file.write(f"{lengths}\\n")
            while any("waits" in request for request in requests) and not os.path.exists("gate"):
                time.sleep(0.005)
            return lengths
        HOOK

    if __name__ == "__main__":
        ls.LitServer(Lengths(max_batch_size=8), OPTIONS).run(port=0)
"""


@pytest.fixture
def lengths(serve):
    def start(options="timeout=20", hook=""):
        return serve(LENGTHS.replace("HOOK", hook).replace("OPTIONS", options))

    return start


@pytest.fixture
def batches(tmp_path):
    """Returns the lengths of the items of each batch so far."""

    def read():
        path = tmp_path / "batches"
        return list(map(json.loads, path.read_text().splitlines())) if path.exists() else []

    return read


def post_all(server, bodies):
    """Sends requests side by side; returns their answers in their order."""

    async def post():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=server.url, timeout=PATIENCE, limits=limits
        ) as client:
            return await asyncio.gather(*(client.post("/predict", json=body) for body in bodies))

    return asyncio.run(post())


@pytest.fixture
def post_behind_another(batches, tmp_path):
    """Returns a function that sends requests, which all wait while the worker computes another."""

    def post(server, bodies):
        before = len(batches())
        with ThreadPoolExecutor() as pool:
            try:
                first = pool.submit(post_all, server, [{"text": "", "waits": True}])
                wait_until(lambda: len(batches()) > before)
                answers = pool.submit(post_all, server, bodies)
                wait_until(lambda: jobs(server) == 1 + len(bodies))
            finally:
                (tmp_path / "gate").touch()
            assert [answer.json() for answer in first.result()] == [0]
            return answers.result()

    return post


def jobs(server):
    """Returns the number of jobs that wait or that the worker has."""
    text = server.client.get("/metrics").text
    names = r"litplex_queue_depth\{|litplex_worker_inflight_requests\{"
    return sum(map(int, re.findall(rf"^(?:{names}).* (\d+)$", text, re.MULTILINE)))


def texts(*lengths):
    return [{"text": "x" * length} for length in lengths]


def test_an_idle_worker_takes_what_is_there(lengths, batches, post_behind_another):
    server = lengths()
    assert server.post("/predict", json={"text": "one"}).json() == 3
    answers = post_behind_another(server, texts(*range(1, 13)))
    assert [answer.json() for answer in answers] == [*range(1, 13)]
    first, before, *rest = batches()
    assert (first, before) == ([3], [0])
    assert [len(batch) for batch in rest] == [8, 4]


def test_a_batch_waits_no_longer_than_it_may(lengths, batches):
    server = lengths("batch_timeout=0.5")
    assert [a.json() for a in post_all(server, texts(1, 2, 3))] == [1, 2, 3]
    assert [sorted(batch) for batch in batches()] == [[1, 2, 3]]


HOOK = """
        def cost(self, request):
            if "text" not in request:
                raise ls.HTTPException(422, "`text` is missing")
            return len(request["text"])
"""


@pytest.mark.parametrize(
    ("options", "hook"), [('cost="text:length"', ""), ('cost="body:bytes"', ""), ("", HOOK)]
)
def test_a_batch_costs_no_more_than_it_may_and_like_goes_with_like(
    lengths, batches, post_behind_another, options, hook
):
    # An item costs as much as the longest one of its batch, and a little more by bytes.
    server = lengths(f"max_batch_cost=500, {options}", hook)
    mixed = [10, 200, 12, 190, 9, 210, 11, 700, 10, 205, 8]
    answers = post_behind_another(server, texts(*mixed))
    assert [answer.json() for answer in answers] == mixed
    behind = batches()[1:]
    assert sorted(itertools.chain(*behind)) == sorted(mixed)
    assert all(len(batch) == 1 or len(batch) * max(batch) <= 500 for batch in behind)
    assert all(max(batch) < 10 * min(batch) for batch in behind)
    assert max(len(batch) for batch in behind) >= 3


def test_an_exception_of_the_cost_hook_answers_its_request_alone(lengths, batches):
    server = lengths("max_batch_cost=500", HOOK)
    fine, wrong, also_fine = post_all(server, [{"text": "a"}, {}, {"text": "b"}])
    assert (fine.status_code, also_fine.status_code) == (200, 200)
    assert (wrong.status_code, wrong.json()) == (422, {"detail": "`text` is missing"})
    assert sorted(itertools.chain(*batches())) == [1, 1]


RAISES = """
    class Raises(ls.LitAPI):
        def predict(self, xs):
            with open("batches", "a") as file:
                file.write(f"{xs}\\n")
            if 3 in xs:
                raise ValueError("three")
            return xs

    if __name__ == "__main__":
        ls.LitServer(Raises(max_batch_size=8, batch_timeout=0.5), OPTIONS).run(port=0)
"""


def test_the_items_of_a_batch_that_raised_are_computed_again_one_by_one(serve, batches):
    server = serve(RAISES.replace("OPTIONS", ""))
    answers = post_all(server, range(6))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 500, 200, 200]
    together, *alone = batches()
    assert sorted(together) == [*range(6)]
    assert sorted(alone) == [[n] for n in range(6)]


@pytest.mark.parametrize("option", ["retry_batch_singly=False", "idempotent=False"])
def test_a_batch_that_must_not_be_computed_again_fails_as_one(serve, batches, option):
    server = serve(RAISES.replace("OPTIONS", option))
    answers = post_all(server, range(6))
    assert [answer.status_code for answer in answers] == [500] * 6
    assert len(batches()) == 1


def test_async_hooks_compute_side_by_side_and_no_more_than_they_may(serve):
    server = serve("""
        import asyncio

        class Meets(ls.LitAPI):
            async def setup(self, device):
                self.here, self.most = 0, 0
            async def predict(self, x):
                self.here += 1
                self.most = max(self.most, self.here)
                await asyncio.sleep(0.1)
                self.here -= 1
                return self.most

        if __name__ == "__main__":
            ls.LitServer(Meets(max_concurrency=5)).run(port=0)
    """)
    answers = post_all(server, range(30))
    assert [answer.status_code for answer in answers] == [200] * 30
    assert max(answer.json() for answer in answers) == 5


def test_streams_of_a_batch_end_one_by_one(serve):
    server = serve("""
        class Counts(ls.LitAPI):
            def predict(self, counts):
                for n in range(max(counts)):
                    yield [n if n < count else ls.FINISHED for count in counts]

        if __name__ == "__main__":
            api = Counts(max_batch_size=4, batch_timeout=0.3, stream=True)
            ls.LitServer(api).run(port=0)
    """)
    answers = post_all(server, [1, 5, 3, 50])
    assert [len(answer.text.splitlines()) for answer in answers] == [1, 5, 3, 50]
    assert {answer.status_code for answer in answers} == {200}


def test_requests_join_and_leave_a_model_between_its_steps(serve):
    server = serve("""
        import time

        class Generates(ls.ContinuousAPI):
            def admit(self, count, context):
                if count < 0:
                    raise ls.HTTPException(422, "negative")
                return {"left": count}
            def step(self, sequences):
                time.sleep(0.01)
                for sequence in sequences:
                    sequence["left"] -= 1
                return [
                    ls.FINISHED if sequence["left"] < 0 else len(sequences)
                    for sequence in sequences
                ]
            def finish(self, sequence, reason):
                print("finished", reason)

        if __name__ == "__main__":
            ls.LitServer(Generates(max_batch_size=8, stream=True)).run(port=0)
    """)
    answers = post_all(server, [60, 5, -1, 40, 0])
    assert [answer.status_code for answer in answers] == [200, 200, 422, 200, 200]
    steps = [[int(line) for line in a.text.splitlines()] for a in answers if a.status_code == 200]
    assert [len(each) for each in steps] == [60, 5, 40, 0]
    # The longest was in company first, and alone in the end.
    assert max(steps[0]) > 1
    assert steps[0][-1] == 1
    server.wait_for_line("finished finished")
    # A client that leaves makes room.
    with server.client.stream("POST", "/predict", json=10**9) as response:
        next(response.iter_raw())
    server.wait_for_line("finished cancelled")
    assert server.post("/predict", json=2).text == "1\n1\n"


PADS = """
    import time

    class Pads(ls.LitAPI):
        def predict(self, requests):
            lengths = [len(request["text"]) for request in requests]
            with open("batches", "a") as file:
                file.write(f"{lengths}\\n")
            time.sleep(0.002 + len(lengths) * max(lengths) * 20e-6)
            return lengths

    if __name__ == "__main__":
        ls.LitServer(Pads(max_batch_size=8), OPTIONS).run(port=0)
"""


def post_mixed_texts(server, rounds):
    """Sends short and long texts from 24 callers, each of which waits for its response."""
    lengths = itertools.cycle([20, 20, 1500, 20, 20, 20, 20])

    async def caller(client):
        for _ in range(rounds):
            length = next(lengths)
            response = await client.post("/predict", json={"text": "x" * length})
            assert response.json() == length

    async def callers():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=server.url, timeout=PATIENCE, limits=limits
        ) as client:
            await asyncio.gather(*(caller(client) for _ in range(24)))

    asyncio.run(callers())


def mixed(batches):
    """Returns the share of the batches in which short texts are padded to long ones."""
    return sum(20 in batch and 1500 in batch for batch in batches) / len(batches)


def test_a_model_that_pads_gets_texts_of_similar_length_without_an_option(serve, batches):
    server = serve(PADS.replace("OPTIONS", ""))
    post_mixed_texts(server, 40)
    learned = len(batches())
    post_mixed_texts(server, 10)
    assert mixed(batches()[learned:]) < 0.3
    endpoint = httpx.get(f"{server.url}/info").json()["endpoints"][0]
    assert "requests of similar size go together" in endpoint["batches"]
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'litplex_batch_basis{endpoint="/predict",basis="padded"} 1' in metrics
    assert 'litplex_batches_total{endpoint="/predict",limit="padding"}' in metrics


def test_batches_of_a_fixed_policy_have_the_order_of_arrival(serve, batches):
    server = serve(PADS.replace("OPTIONS", 'batch_policy="fixed"'))
    post_mixed_texts(server, 20)
    assert mixed(batches()) > 0.5
    endpoint = httpx.get(f"{server.url}/info").json()["endpoints"][0]
    assert "`batch_policy`" in endpoint["batches"]
