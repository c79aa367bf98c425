"""Metrics of models: the objects in hooks, and the reports of the worker."""

import copy
import pickle

import litplex as ls
import pytest
from litplex._metrics import Metrics

MODEL = """
    class API(ls.LitAPI):
        def __init__(self):
            super().__init__()
            self.early = self.counter("early", "Made before setup.")

        def setup(self, device):
            self.tokens = self.counter("tokens", "Tokens generated.")
            self.free = self.gauge("free_bytes")
            self.size = self.histogram("size", buckets=[1, 10])

        def predict(self, x):
            self.early.add()
            self.tokens.add(x)
            self.free.set(-x)
            self.size.observe(x)
            self.log("loss", x)
            return x
"""


def by_name(changes):
    return {change.pop("name"): change for change in changes}


def test_each_change_is_reported_once(worker):
    server = worker(MODEL, metrics=True)
    for id, value in enumerate((2, 0.5, 20), 1):
        server.request(id, value)
    server.answers(3)
    server.ping()
    said = by_name(server.metrics())
    assert {name: change.pop("help") for name, change in said.items()} == {
        "early": "Made before setup.",
        "tokens": "Tokens generated.",
        "free_bytes": "Set by the model.",
        "size": "Observed by the model.",
        "loss": "What models logged as loss.",
    }
    assert said == {
        "early": {"kind": "counter", "value": 3},
        "tokens": {"kind": "counter", "value": 22.5},
        "free_bytes": {"kind": "gauge", "value": -20},
        "size": {"kind": "histogram", "bounds": [1, 10], "counts": [1, 1, 1], "sum": 22.5},
        "loss": {"kind": "summary", "count": 3, "sum": 22.5},
    }
    server.request(4, 1)
    server.answers(1)
    assert server.end() == 0
    assert by_name(server.metrics())["tokens"]["value"] == 1


def test_a_server_without_metrics_gets_none(worker):
    server = worker(MODEL)
    server.request(1, 1)
    server.answers(1)
    server.ping()
    assert server.end() == 0
    assert server.metrics() is None


@pytest.mark.parametrize("name", ["", "1a", "loss/train", "größe", "a b", "x" * 65, None])
def test_a_name_that_no_metric_can_have(name):
    with pytest.raises(ValueError, match="expected a letter and then letters"):
        ls.LitAPI().counter(name)


def test_values_that_cannot_be_measured_are_refused_with_a_reason():
    api = ls.LitAPI()
    tokens = api.counter("tokens")
    with pytest.raises(ValueError, match="`tokens` only grows"):
        tokens.add(-1)
    with pytest.raises(ValueError, match="takes finite numbers, not nan"):
        tokens.add(float("nan"))
    with pytest.raises(ValueError, match="`tokens` is measured already, as a counter"):
        api.gauge("tokens")
    with pytest.raises(ValueError, match="reads like a part of another metric"):
        api.gauge("tokens_sum")
    for wrong in ([2, 1], [], [1, float("inf")]):
        with pytest.raises(ValueError, match="must be finite and grow from one to the next"):
            api.histogram("size", buckets=wrong)
    api.histogram("size", buckets=[1, 2])
    with pytest.raises(ValueError, match="with other buckets"):
        api.histogram("size")
    for number in range(98):
        api.counter(f"name_{number}")
    with pytest.raises(ValueError, match="one metric too many: a model has 100 at most"):
        api.counter("one_more")
    assert api.counter("tokens") is tokens


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda api: pickle.loads(pickle.dumps(api))])
def test_models_travel_with_their_metrics(copied):
    api = ls.LitAPI()
    api.tokens = api.counter("tokens")  # type: ignore[attr-defined]
    api.tokens.add(2)  # type: ignore[attr-defined]
    other = copied(api)
    other.tokens.add(1)
    assert [change["value"] for change in other._litplex_metrics.take()] == [3]
    assert api.counter("tokens")._value == 2


def test_a_logged_value_that_cannot_be_measured_needs_a_logger():
    api = ls.LitAPI()
    api.log("x", 1)
    for key, value, why in [
        ("x", "text", "only numbers"),
        ("x", True, "only numbers"),
        ("a/b", 1, "invalid metric name"),
    ]:
        with pytest.warns(UserWarning, match=f"give LitServer `loggers` .*{why}"):
            api.log(key, value)


def test_values_that_are_not_finite_are_left_out():
    metrics = Metrics()
    metrics.observe("loss", float("nan"))
    metrics.observe("loss", float("inf"))
    assert metrics.take() == []
