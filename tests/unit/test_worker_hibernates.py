"""A worker that hibernates: it connects again, and its model goes on where it was."""

import os

import pytest
from conftest import wait_until
from litplex._worker.wire import frames

HOOKS = {
    "plain": """
        {def} predict(self, x):
            self.count += 1
            return [x, self.count]
    """,
    "batch": """
        {def} predict(self, batch):
            self.count += 1
            return [[x, self.count] for x in batch]
    """,
}

MODEL = """
    class API(ls.LitAPI):
        def __init__(self):
            super().__init__({arguments})

        def setup(self, device):
            self.count = 0
            self.data = bytearray(1 << 20)

        def health(self):
            return True
{hooks}
        def teardown(self):
            say(f"torn down after {{self.count}}")
"""

CONTINUOUS = """
    class API(ls.ContinuousAPI):
        def setup(self, device):
            self.count = 0

        def admit(self, x, context):
            return x

        def step(self, sequences):
            self.count += 1
            return [ls.Last([x, self.count]) for x in sequences]

        def teardown(self):
            say(f"torn down after {self.count}")
"""


def model(hooks, way):
    arguments = "max_batch_size=2" if hooks == "batch" else ""
    return MODEL.format(arguments=arguments, hooks=HOOKS[hooks].replace("{def}", way))


MODELS = {
    "plain": model("plain", "def"),
    "async": model("plain", "async def"),
    "batch": model("batch", "def"),
    "continuous": CONTINUOUS,
}


def hibernate(server):
    """Lets a worker hibernate, until it has connected again."""
    server.socks["data"].shutdown(1)
    server.send("control", frames.encode(frames.HIBERNATE))
    before = list(server.socks.values())
    for role in ("data", "control"):
        server.welcome(role)
    for sock in before:
        sock.close()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_goes_on_where_it_was(worker, name):
    # With calls the fake server goes on listening.
    server = worker(MODELS[name], hibernates=True, calls=True)
    assert server.traits["hibernates"] is True
    for round in (1, 2, 3):
        server.request(round, "x")
        ((status, answer),) = server.answers(1).values()
        # What is batched continuously is a list of outputs.
        assert (status, answer[0] if name == "continuous" else answer) == (200, ["x", round])
        hibernate(server)
        server.send("data", frames.encode_message(frames.SETUP, {"device": "cpu"}))
        server.ready()
        assert server.errors == ""
        # Those of the last link have ended: the main, the control and a helper thread are left.
        wait_until(lambda: len(os.listdir(f"/proc/{server.process.pid}/task")) <= 3)
    server.socks["data"].shutdown(1)
    server.send("control", frames.encode(frames.BYE))
    assert server.process.wait(15) == 0
    assert server.errors == "torn down after 3\n"


WAITS = """
    class API(ls.LitAPI):
        asked = False

        async def health(self):
            # The first answer comes before the worker is ready.
            if self.asked:
                say("asked")
                await asyncio.sleep(3600)
            self.asked = True
            return True

        async def predict(self, x):
            return x
"""


def test_a_health_that_waits_on_the_event_loop_does_not_keep_it_awake(worker):
    server = worker(WAITS, hibernates=True, calls=True)
    server.send("control", frames.encode(frames.PING, id=1))
    server.wait_for("asked")
    hibernate(server)
    server.send("data", frames.encode_message(frames.SETUP, {"device": "cpu"}))


BLOCKS = """
    class API(ls.LitAPI):
        asked = False

        async def setup(self, device):
            pass

        async def health(self):
            if self.asked:
                say("asked")
                gate()
            self.asked = True
            return True

        def predict(self, x):
            return x

        def teardown(self):
            say("torn down")
"""


def test_a_worker_whose_health_blocks_the_event_loop_ends(worker):
    server = worker(BLOCKS, hibernates=True, calls=True)
    server.send("control", frames.encode(frames.PING, id=1))
    server.wait_for("asked")
    server.socks["data"].shutdown(1)
    server.send("control", frames.encode(frames.HIBERNATE))
    server.wait_for("ends and does not hibernate: `health` blocks the event loop\ntorn down\n")
    server.open_gate()
    assert server.process.wait(15) == 0


def test_a_worker_that_is_not_woken_tears_down(worker):
    server = worker(MODELS["plain"], hibernates=True, calls=True)
    hibernate(server)
    server.hang_up()
    assert server.process.wait(15) == 0
    assert server.errors == "torn down after 0\n"


def test_a_worker_whose_server_is_gone_when_it_connects_again_tears_down(worker):
    server = worker(MODELS["plain"], hibernates=True, calls=True)
    server.listener.close()
    server.socks["data"].shutdown(1)
    server.send("control", frames.encode(frames.HIBERNATE))
    assert server.process.wait(15) == 0
    assert server.errors == "torn down after 0\n"


def test_without_it_no_worker_says_that_it_hibernates(worker):
    assert "hibernates" not in worker(MODELS["plain"]).traits
