"""How an instance is described to its workers."""

import threading

import litplex as ls
import pytest
from litplex import _handover


class API(ls.LitAPI):
    handle: object = None

    def predict(self, x):
        return x


def test_an_instance_of_a_module_is_pickled():
    assert _handover.source_of(API(), 0, 0)["kind"] == "pickle"


def test_an_instance_that_cannot_reach_its_worker_names_the_attribute(monkeypatch):
    monkeypatch.setattr(_handover, "script", lambda: {"file": None})
    api = API()
    api.handle = threading.Lock()
    with pytest.raises(ValueError, match=r"`handle` \(a lock\).*`setup\(device\)`"):
        _handover.source_of(api, 0, 0)


def test_public_names():
    assert len(ls.__all__) == len(set(ls.__all__))
    assert all(getattr(ls, name) for name in ls.__all__)
