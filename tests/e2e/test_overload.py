"""More load than capacity: the server answers at capacity and refuses the rest at once."""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import httpx
import pytest
from conftest import PATIENCE, wait_until

MODEL = """
    import time

    class Slow(ls.LitAPI):
        def predict(self, seconds):
            time.sleep(seconds)
            return seconds

    def serve(**options):
        if __name__ == "__main__":
            ls.run_servers(
                ls.LitServer(Slow(), path="/slow", **options),
                ls.LitServer(Slow(), path="/fast"),
                port=0,
            )
"""


def check_refusal(response):
    assert response.status_code == 503
    assert re.fullmatch(r"[1-9]\d*", response.headers["retry-after"])
    assert "queue" in response.json()["detail"]


def test_a_burst_far_above_capacity(serve):
    server = serve(f"{MODEL}\n    serve(timeout=0.5)")
    for _ in range(5):
        assert server.post("/slow", json=0.05).status_code == 200
    limits = httpx.Limits(max_connections=200)
    with httpx.Client(base_url=server.url, timeout=20, limits=limits) as client:
        with ThreadPoolExecutor(200) as pool:
            responses = [*pool.map(lambda _: client.post("/slow", json=0.05), range(200))]
        # No client has left a request behind.
        wait_until(lambda: client.post("/slow", json=0.05).status_code == 200)
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) <= {200, 503, 504}
    # The budget has room for ten of them, and for fewer on a busy machine.
    assert statuses[200] >= 2, statuses
    assert statuses[504] <= 10, statuses
    for response in responses:
        if response.status_code == 503:
            check_refusal(response)


def test_load_that_stays_above_capacity_keeps_the_model_busy(serve):
    server = serve(f"{MODEL}\n    serve(timeout=0.5)")
    for _ in range(5):
        server.post("/slow", json=0.05)
    statuses: Counter[int] = Counter()
    refusals = []
    slow_fast = []
    end = time.monotonic() + 4

    def call():
        # It sends the head with the body, which then cannot be late on a busy machine.
        address = httpx.URL(server.url).netloc.decode()
        with contextlib.closing(HTTPConnection(address, timeout=20)) as client:
            while time.monotonic() < end:
                begin = time.monotonic()
                client.request("POST", "/slow", b"0.05", {"content-type": "application/json"})
                answer = client.getresponse()
                text, headers = answer.read(), dict(answer.getheaders())
                response = httpx.Response(answer.status, headers=headers, content=text)
                statuses[response.status_code] += 1
                if response.status_code == 503:
                    refusals.append((response, time.monotonic() - begin))
                    time.sleep(0.02)

    def call_fast():
        with httpx.Client(base_url=server.url, timeout=20) as client:
            while time.monotonic() < end:
                begin = time.monotonic()
                assert client.post("/fast", json=0).status_code == 200
                slow_fast.append(time.monotonic() - begin)
                time.sleep(0.01)

    threads = [threading.Thread(target=call) for _ in range(40)]
    threads.append(threading.Thread(target=call_fast))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(statuses) <= {200, 503, 504}, statuses
    # 80 would be all that one worker can.
    assert statuses[200] >= 40, statuses
    assert statuses[504] <= statuses[200] / 4, statuses
    assert refusals
    for response, _ in refusals:
        check_refusal(response)
    took = sorted(took for _, took in refusals)
    assert took[len(took) // 2] < 0.25, "a refusal does not wait"
    assert sorted(slow_fast)[len(slow_fast) // 2] < 0.25, "the other endpoint does not feel it"
    wait_until(lambda: server.post("/slow", json=0).status_code == 200)


def test_the_queue_holds_at_most_its_limit(serve):
    server = serve(f"{MODEL}\n    serve(max_queue=2)")
    with ThreadPoolExecutor(8) as pool:
        begin = time.monotonic()
        first = pool.submit(server.post, "/slow", json=4)
        time.sleep(0.5)
        others = [pool.submit(server.post, "/slow", json=0) for _ in range(6)]
        wait_until(lambda: sum(call.done() for call in others) == 4)
        assert time.monotonic() - begin < 3.5, "those that are refused do not wait"
    refused = [call.result() for call in others if call.result().status_code != 200]
    assert len(refused) == 4
    for response in refused:
        check_refusal(response)
    assert "2 requests wait" in refused[0].json()["detail"]
    assert first.result().status_code == 200


def test_batches_under_overload(serve):
    server = serve("""
        import time

        class Batched(ls.LitAPI):
            def predict(self, xs):
                time.sleep(0.1)
                return xs

        if __name__ == "__main__":
            ls.LitServer(Batched(max_batch_size=4), timeout=0.5).run(port=0)
    """)
    for n in range(5):
        server.post("/predict", json=n)
    with httpx.Client(base_url=server.url, timeout=20, limits=httpx.Limits()) as client:
        with ThreadPoolExecutor(100) as pool:
            responses = [*pool.map(lambda n: client.post("/predict", json=n), range(100))]
        assert all(r.json() == n for n, r in enumerate(responses) if r.status_code == 200)
        wait_until(lambda: client.post("/predict", json=1).status_code == 200)
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) <= {200, 503, 504}
    assert statuses[200] >= 6, statuses
    assert statuses[504] <= 20, statuses


CONNECTIONS = """
    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    ls.LitServer(Echo(), path="/echo").run(port=0, max_connections=2)
"""


def test_more_connections_than_it_holds_wait_for_one_to_end(serve):
    server = serve(CONNECTIONS)
    address = ("127.0.0.1", server.client.base_url.port)
    with contextlib.ExitStack() as sockets:
        held, _, waiting = (
            sockets.enter_context(socket.create_connection(address)) for _ in range(3)
        )
        server.wait_for_line("all connections are taken; more clients wait")
        waiting.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        waiting.settimeout(0.5)
        with pytest.raises(OSError):  # `TimeoutError`, from Python 3.10 on
            waiting.recv(1)
        held.close()
        waiting.settimeout(PATIENCE)
        assert waiting.recv(64).startswith(b"HTTP/1.1 200")


GRAPH = """
    import asyncio, time

    class First(ls.LitAPI):
        def predict(self, x):
            with open("began", "a") as file:
                file.write(f"{x}\\n")
            return x

    class Slow(ls.LitAPI):
        def predict(self, x):
            time.sleep(0.1)
            return x

    class Calls(ls.LitAPI):
        first, slow = ls.endpoint("/first"), ls.endpoint("/slow")
        async def predict(self, x):
            return await self.slow.acall(await self.first.acall(x))

    class Tries(Calls):
        async def predict(self, x):
            x = await self.first.acall(x)
            try:
                return await self.slow.acall(x)
            except ls.CallError:
                return x

    soft = ls.step("/slow", dependency="soft", default="late", timeout=0.5)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(First(), path="/first"),
            ls.LitServer(Slow(), path="/slow"),
            ls.LitServer(Calls(), path="/calls", timeout=1),
            ls.LitServer(Tries(), path="/tries", timeout=1),
            ls.LitServer(ls.Pipeline("/first", "/slow"), path="/pipeline", timeout=1),
            ls.LitServer(ls.Pipeline("/first", soft), path="/soft", timeout=1),
            port=0,
        )
"""
WAVE = 60


def wave(server, path, began):
    """Sends requests at the same time. Returns the responses, and how many reached `/first`."""
    began.write_text("")
    limits = httpx.Limits(max_connections=WAVE)
    client = httpx.Client(base_url=server.url, timeout=20, limits=limits)
    with client, ThreadPoolExecutor(WAVE) as pool:
        responses = [*pool.map(lambda x: client.post(path, json=x), range(WAVE))]
    return responses, len(began.read_text().splitlines())


def test_requests_are_refused_before_work_is_done_for_them_in_vain(serve, tmp_path):
    server = serve(GRAPH)
    for path in ("/calls", "/pipeline"):
        for x in range(5):
            assert server.post(path, json=x).status_code == 200
        wave(server, path, tmp_path / "began")
        responses, begun = wave(server, path, tmp_path / "began")
        statuses = Counter(response.status_code for response in responses)
        # A second has room for ten of them.
        assert statuses[200] >= 5, (path, statuses)
        assert statuses[200] + statuses[503] >= WAVE - 2, (path, statuses)
        assert begun <= statuses[200] + 3, (path, begun, statuses)
        refused = next(response for response in responses if response.status_code == 503)
        assert re.fullmatch(r"[1-9]\d*", refused.headers["retry-after"])
        assert "`/slow`, which this request needs" in refused.json()["detail"]


def test_requests_that_do_without_an_endpoint_are_not_refused_for_it(serve, tmp_path):
    server = serve(GRAPH)
    for path in ("/tries", "/soft"):
        for x in range(5):
            assert server.post(path, json=x).status_code == 200
        for _ in range(3):
            responses, _ = wave(server, path, tmp_path / "began")
            statuses = Counter(response.status_code for response in responses)
            # A call may end at the deadline of its caller, which then has no time left.
            assert not statuses[503], (path, statuses)
            assert statuses[200] >= WAVE - 2, (path, statuses)


SLEEPS = """
    import time

    class Sleeps(ls.LitAPI):
        def predict(self, xs):
            time.sleep(0.05)
            return xs

    if __name__ == "__main__":
        ls.LitServer(Sleeps(max_batch_size=2), OPTIONS).run(port=0)
"""


def ages_of_responses(server):
    """Sends three times the capacity for 4 s, from callers who leave after 1 s.

    Returns the times in seconds after which responses with status 200 came."""
    ages = []

    async def call(client, number):
        begin = time.monotonic()
        with contextlib.suppress(asyncio.TimeoutError):
            response = await asyncio.wait_for(client.post("/predict", json=number), 1)
            if response.status_code == 200:
                assert response.json() == number
                ages.append(time.monotonic() - begin)
            else:
                check_refusal(response)

    async def calls():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=server.url, timeout=PATIENCE, limits=limits
        ) as client:
            tasks, begin = [], time.monotonic()
            for number in range(4 * 120):
                await asyncio.sleep(begin + number / 120 - time.monotonic())
                tasks.append(asyncio.create_task(call(client, number)))
            await asyncio.gather(*tasks)

    asyncio.run(calls())
    return ages


def test_the_newest_requests_go_first_while_callers_leave(serve):
    ages = ages_of_responses(serve(SLEEPS.replace("OPTIONS", "")))
    ordered = ages_of_responses(serve(SLEEPS.replace("OPTIONS", 'queue_order="arrival"')))
    quick, slow = (sum(age < 0.5 for age in some) for some in (ages, ordered))
    assert quick > 2 * slow, (quick, slow)
