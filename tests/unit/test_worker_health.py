"""The `async` health of a model, which the worker asks while the model serves."""

import threading

import pytest
from litplex._worker.control.health import Health
from litplex._worker.wire import frames

HEALTH = """
        is_set_up = False

        async def setup(self, device):
            self.loop = asyncio.get_running_loop()

        async def health(self):
            assert asyncio.get_running_loop() is self.loop
            # The first answer comes before the worker is ready.
            if self.is_set_up:
                say("asked")
                try:
                    while not os.path.exists("gate"):
                        await asyncio.sleep(0.005)
                    say("well")
                finally:
                    say("left")
            self.is_set_up = True
            return True

        async def teardown(self):
            say("torn down")
"""

ASYNC = f"""
    class API(ls.LitAPI):
        {HEALTH}
        async def predict(self, x):
            yield x
            yield await asyncio.sleep(0.01, x)
"""

# A hook in C may return an `async` generator: the loop runs for each of its values.
PLAIN = f"""
    class Values(dict):
        def __missing__(self, x):
            return self.each(x)

        async def each(self, x):
            yield x
            yield await asyncio.sleep(0.01, x)

    class API(ls.LitAPI):
        predict = Values().__getitem__
        {HEALTH}
"""

PING = frames.encode(frames.PING, id=1)


@pytest.fixture(params=[ASYNC, PLAIN], ids=["async", "plain"])
def server(worker, request):
    return worker(request.param, {"stream": True}, ready=False)


@pytest.fixture
def asked(server):
    """A worker that asks its model from the moment when it is ready."""
    server.send("control", PING)
    server.ready()
    assert "reason" not in server.traits
    server.wait_for("asked")
    return server


def test_it_runs_beside_requests_from_the_first_moment(asked):
    asked.request(1, "x")
    asked.credit(1, 10)
    assert asked.items() == {1: ["x", "x", 0]}
    asked.open_gate()
    asked.wait_for("left")
    asked.socks["data"].shutdown(1)
    assert asked.end() == 0
    assert asked.errors == "asked\nwell\nleft\ntorn down\n"


def test_one_that_waits_ends_with_the_worker(asked):
    asked.socks["data"].shutdown(1)
    assert asked.end() == 0
    assert asked.errors == "asked\nleft\ntorn down\n"


def test_a_worker_may_end_while_its_thread_starts(monkeypatch):
    class Model:
        def health(self):
            return True

    health = Health(Model(), runs_loop=False)

    class Thread(threading.Thread):
        def start(self):
            health.end()
            assert health.wait(5)
            super().start()

    monkeypatch.setattr(threading, "Thread", Thread)
    health.refresh()
    assert health.wait(5)
