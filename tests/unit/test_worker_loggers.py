"""Values that a model logs reach its loggers, and failures of loggers do not harm requests."""

import litplex as ls
import pytest

MODEL = """
    from litplex.compat.loggers import Logger

    class Says(Logger):
        def process(self, key, value):
            if value == "bad":
                raise RuntimeError("broken logger")
            say(f"{key}={value}")

    class API(ls.LitAPI):
        def __init__(self):
            super().__init__()
            self._litserve_loggers = [Says()]

        def predict(self, x):
            self.log("x", x)
            return x
"""


def test_entries_are_processed_in_order_and_to_the_end(worker):
    server = worker(MODEL)
    for id in range(1, 100):
        server.request(id, id)
    server.answers(99)
    assert server.end() == 0
    assert server.errors.splitlines() == [f"x={id}" for id in range(1, 100)]


def test_a_logger_that_raises_harms_no_request(worker):
    server = worker(MODEL)
    server.request(1, "bad")
    server.request(2, "good")
    assert server.answers(2) == {1: (200, "bad"), 2: (200, "good")}
    server.wait_for("x=good")


def test_a_log_without_a_logger_causes_a_warning():
    class API(ls.LitAPI):
        def predict(self, x):
            return x

    with pytest.warns(UserWarning, match="give LitServer `loggers`"):
        API().log("x", "text")
