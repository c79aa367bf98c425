"""A worker whose server has ended exits without output."""

import pytest

FINE = """
    class API(ls.LitAPI):
        def setup(self, device):
            say("setup")
            gate()

        def predict(self, x):
            return x

        def teardown(self):
            say("teardown")
"""
FAILS = """
    class API(ls.LitAPI):
        def setup(self, device):
            say("setup")
            gate()
            raise RuntimeError("no weights")

        def predict(self, x):
            return x
"""
ANSWERS = """
    class API(ls.LitAPI):
        def predict(self, x):
            say("predict")
            gate()
            return x

        def teardown(self):
            say("teardown")
"""
CONTINUOUS = """
    class API(ls.ContinuousAPI):
        def admit(self, x, context):
            return x

        def step(self, sequences):
            say("predict")
            gate()
            return [ls.Last(x) for x in sequences]

        def teardown(self):
            say("teardown")
"""


@pytest.mark.parametrize("model", [FINE, FAILS], ids=["ready", "failed"])
def test_while_it_sets_up(worker, model):
    server = worker(model, ready=False)
    server.wait_for("setup")
    server.hang_up()
    server.open_gate()
    server.process.wait(15)
    assert server.errors == "setup\n"


@pytest.mark.parametrize("model", [ANSWERS, CONTINUOUS], ids=["single", "continuous"])
def test_while_it_computes(worker, model):
    server = worker(model)
    server.request(1, 1)
    server.wait_for("predict")
    server.hang_up()
    server.open_gate()
    assert server.process.wait(15) == 0
    assert server.errors == "predict\nteardown\n"
