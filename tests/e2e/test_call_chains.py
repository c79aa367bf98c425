"""Chains and graphs of calls: what breaks in other systems of several models."""

import hashlib
import json
import random
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from conftest import NOTES, wait_until

SERVER = (
    NOTES
    + """
    import asyncio, hashlib, random
    from concurrent.futures import ThreadPoolExecutor

    class Add(ls.LitAPI):
        def predict(self, numbers):
            time.sleep(0.001 * (sum(numbers) % 3))
            return 1 + sum(numbers)

    def random_graph(seed):
        # Each node adds up some of the nodes before it, and one.
        draw = random.Random(seed)
        return draw, [[n for n in range(at) if draw.random() < 0.4] for at in range(12)]

    class Graph(ls.LitAPI):
        add = ls.endpoint("/add")

        def predict(self, seed):
            draw, graph = random_graph(seed)
            values, calls = {}, {}
            # Calls of a level run at once; threads take their results in any order, and twice.
            with ThreadPoolExecutor(4) as pool:
                while len(values) < len(graph):
                    ready = [at for at, needs in enumerate(graph)
                             if at not in values and all(n in values for n in needs)]
                    calls = {at: self.add.later([values[n] for n in graph[at]]) for at in ready}
                    order = [*ready, *ready]
                    draw.shuffle(order)
                    results = pool.map(lambda at: (at, calls[at].result()), order)
                    for at, result in results:
                        assert values.setdefault(at, result) == result
            return [values[at] for at in range(len(graph))]

    class AGraph(ls.LitAPI):
        add = ls.endpoint("/add")

        async def predict(self, seed):
            draw, graph = random_graph(seed)
            tasks = {}

            async def node(at):
                needs = list(graph[at])
                draw.shuffle(needs)
                return await self.add.acall([await tasks[n] for n in needs])

            def other_loop(at, values):
                async def call():
                    return await self.add.acall(values)
                return asyncio.run(call())

            async def node_elsewhere(at):
                values = [await tasks[n] for n in graph[at]]
                return await asyncio.to_thread(other_loop, at, values)

            for at in range(len(graph)):
                kind = node if draw.random() < 0.6 else node_elsewhere
                tasks[at] = asyncio.ensure_future(kind(at))
            order = list(tasks)
            draw.shuffle(order)
            for at in order:
                await tasks[at]
            return [tasks[at].result() for at in range(len(graph))]

    class Pass(ls.LitAPI):
        def __init__(self, callee, **options):
            super().__init__(**options)
            self.next = ls.endpoint(callee)

        def predict(self, x):
            return self.next(x)

    class Size(ls.LitAPI):
        def predict(self, x):
            data = x["data"] if isinstance(x, dict) else x
            digest = hashlib.sha256(bytes(data)).hexdigest()
            return [len(data), digest, x if data is not x else None]

    class Late(ls.LitAPI):
        slow = ls.endpoint("/slow")

        def predict(self, x):
            note("begin")
            try:
                self.slow(x)
            except ls.CallError:
                pass
            # It does not stop when its client has left.
            time.sleep(0.3)
            note("end")
            raise RuntimeError(f"late failure of {x}")

    class Slow(ls.LitAPI):
        def predict(self, x, context):
            while not context.cancelled:
                time.sleep(0.005)

    class Sleepy(ls.LitAPI):
        def setup(self, device):
            time.sleep(1)

        def predict(self, x):
            return x

    class Wakes(ls.LitAPI):
        sleepy = ls.endpoint("/sleepy")

        def predict(self, timeout):
            try:
                return ls.endpoint("/sleepy", timeout=timeout)(1) if timeout else self.sleepy(1)
            except ls.CallError as error:
                return [error.status, error.retry_after]

    class Fan(ls.LitAPI):
        add = ls.endpoint("/limited")

        def predict(self, x):
            return list(self.add.map([[n] for n in range(x)]))

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Add(), path="/add"),
            ls.LitServer(Add(), path="/limited", rate_limit="1/h", rate_burst=1),
            ls.LitServer(Graph(), path="/graph"),
            ls.LitServer(AGraph(), path="/agraph"),
            ls.LitServer(Size(), path="/size"),
            ls.LitServer(Pass("/size"), path="/third"),
            ls.LitServer(Pass("/third"), path="/second"),
            ls.LitServer(ls.Pipeline("/third"), path="/pipe"),
            ls.LitServer(Late(), path="/late", workers_per_device=2),
            ls.LitServer(Slow(), path="/slow", workers_per_device=4),
            ls.LitServer(Sleepy(), path="/sleepy", min_workers=0, max_workers=1),
            ls.LitServer(Wakes(), path="/wakes"),
            ls.LitServer(Fan(), path="/fan"),
            port=0,
            request_id=True,
            access_log="access.log",
        )
"""
)


def values(seed):
    """Returns the values of the nodes of a random graph, as `/graph` computes them by calls."""
    draw = random.Random(seed)
    graph = [[n for n in range(at) if draw.random() < 0.4] for at in range(12)]
    found: list[int] = []
    for needs in graph:
        found.append(1 + sum(found[n] for n in needs))
    return found


def test_graphs_of_calls(serve, tmp_path, notes):
    server = serve(SERVER)

    # Results are awaited in any order, several times, from threads and from several event loops.
    with ThreadPoolExecutor(4) as pool:
        for path in ("/graph", "/agraph"):
            answers = pool.map(lambda seed, path=path: server.post(path, json=seed), range(10))
            for seed, answer in enumerate(answers):
                assert (answer.status_code, answer.json()) == (200, values(seed)), (path, seed)

    # Large values pass through three stages unchanged.
    data = bytes(range(256)) * 40_000
    digest = hashlib.sha256(data).hexdigest()
    raw = {"Content-Type": "application/octet-stream"}
    for path in ("/second", "/pipe"):
        answer = server.post(path, content=data, headers=raw)
        assert (answer.status_code, answer.json()) == (200, [len(data), digest, None])
    text = "é" * 5_000_000
    for path in ("/second", "/pipe"):
        answer = server.post(path, json={"data": list(b"few"), "text": text})
        assert answer.status_code == 200
        size, shown, echo = answer.json()
        assert (size, shown) == (3, hashlib.sha256(b"few").hexdigest())
        assert echo["text"] == text

    # The client's request counts once: calls have no rate limits, and are not in the access log.
    answer = server.post("/fan", json=5, headers={"X-Request-Id": "the-fan"})
    assert (answer.status_code, answer.json()) == (200, [1, 2, 3, 4, 5])

    def logged():
        return [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]

    wait_until(lambda: any(entry["path"] == "/fan" for entry in logged()))
    assert [entry for entry in logged() if entry["path"] == "/limited"] == []

    # An endpoint without a worker, whose start takes longer than the call may: the start goes on.
    status, retry_after = server.post("/wakes", json=0.2).json()
    assert (status, int(retry_after) >= 1) == (503, True)
    ready = 'litplex_workers{endpoint="/sleepy",state="ready"} 1'
    wait_until(lambda: ready in server.client.get("/metrics").text)
    assert server.post("/wakes", json=0).json() == 1


def test_a_place_is_taken_until_its_hook_returns_although_all_clients_have_left(serve, notes):
    server = serve(SERVER)
    gauge = r'litplex_worker_inflight_requests{endpoint="/late",worker="(\d)"} (\d+)'

    def post(number):
        headers = {"X-Request-Timeout": "0.1", "X-Request-Id": f"late-{number}"}
        return server.post("/late", json=number, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(post, range(8))
        for _ in range(20):
            found = re.findall(gauge, server.client.get("/metrics").text)
            assert all(int(held) <= 1 for _, held in found), found
            time.sleep(0.02)
        assert set(answers) <= {503, 504}
    wait_until(lambda: notes().count("begin") == notes().count("end") >= 2)
    running = 0
    for line in notes():
        running += 1 if line == "begin" else -1
        assert running <= 2
    # An error after the deadline is logged, once and with the id of its request, and counted.
    begun = notes().count("begin")
    wait_until(lambda: len(re.findall("late failure of", server.output)) >= begun)
    lines = [line for line in server.lines if "RuntimeError: late failure of" in line]
    assert len(lines) == len(set(lines)) == begun, server.output
    for line in lines:
        number = re.findall(r"late failure of (\d)", line)[0]
        assert f"late-{number}" in line, line
    counted = server.client.get("/metrics").text
    assert re.search(r'litplex_requests_total{code="504",endpoint="/late",.*} [1-9]', counted)


KILLS = (
    NOTES
    + """
    class Hop(ls.LitAPI):
        def __init__(self, depth, **options):
            super().__init__(**options)
            self.depth = depth
            if depth < 5:
                self.next = ls.endpoint(f"/{depth + 1}")

        def predict(self, x):
            note(f"{x['id']} {self.depth}")
            mark = f"died-{x['id']}-{self.depth}"
            if self.depth in x["dies"] and (x["always"] or not os.path.exists(mark)):
                open(mark, "w").close()
                os._exit(1)
            return self.next(x) if self.depth < 5 else "done"

    if __name__ == "__main__":
        ls.run_servers(
            *[ls.LitServer(Hop(n), path=f"/{n}", workers_per_device=2) for n in range(1, 6)],
            port=0,
        )
"""
)


def test_retries_do_not_multiply_along_a_chain(serve, notes):
    server = serve(KILLS)
    for name, dies, always, expected in [
        ("one", [5], False, {200}),
        ("last", [5], True, {500, 503}),
        ("two", [2, 4], False, {500, 503}),
        ("all", [1, 2, 3, 4, 5], False, {500, 502, 503}),
    ]:
        answer = server.post("/1", json={"id": name, "dies": dies, "always": always})
        assert answer.status_code in expected, (name, answer.text)
        attempts = [line.split()[1] for line in notes() if line.startswith(f"{name} ")]
        assert max(attempts.count(str(hop)) for hop in range(1, 6)) <= 2, (name, attempts)
        # One retry in all: a further loss ends the request.
        assert len(attempts) <= 6, (name, attempts)
        # A worker that dies within a second of its start has a backoff.
        time.sleep(1.2)


STOPPED = (
    NOTES
    + """
    import asyncio

    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    class Numbers(ls.LitAPI):
        def predict(self, count):
            yield from range(count)

    class First(ls.LitAPI):
        def predict(self, x):
            note("in")
            wait_for("stopping")
            return x

    class AsyncHook(ls.LitAPI):
        echo = ls.endpoint("/echo")

        async def predict(self, x):
            note("in")
            await asyncio.to_thread(wait_for, "stopping")
            both = asyncio.gather(self.echo.acall(x), self.echo.acall(x))
            return [*await both, *[y async for y in self.echo.amap([x])]]

    class Stream(ls.LitAPI):
        echo = ls.endpoint("/echo")
        numbers = ls.endpoint("/numbers")

        def predict(self, x):
            yield "first"
            note("in")
            wait_for("stopping")
            yield self.echo(x)
            yield from self.numbers.stream(3)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Echo(), path="/echo"),
            ls.LitServer(Numbers(stream=True), path="/numbers"),
            ls.LitServer(First(), path="/first"),
            ls.LitServer(AsyncHook(), path="/async"),
            ls.LitServer(Stream(stream=True), path="/stream"),
            ls.LitServer(ls.Pipeline("/first", "/echo", ls.map("/echo")), path="/pipe"),
            port=0,
            grace=20,
        )
"""
)


def test_requests_in_their_first_stage_are_answered_while_the_server_stops(serve, notes, tmp_path):
    server = serve(STOPPED)
    with ThreadPoolExecutor(3) as pool:
        answers = [
            pool.submit(server.post, path, json=value)
            for path, value in (("/async", 7), ("/stream", 8), ("/pipe", [1, 2]))
        ]
        wait_until(lambda: notes().count("in") == 3)
        server.signal(signal.SIGTERM)
        server.wait_for_line("stopping")
        (tmp_path / "stopping").touch()
        hook, stream, pipe = (answer.result() for answer in answers)
    assert (hook.status_code, hook.json()) == (200, [7, 7, 7])
    assert "".join(stream.text.split()) == "first8012"
    assert (pipe.status_code, pipe.json()) == (200, [1, 2])
    assert server.wait() == 0
