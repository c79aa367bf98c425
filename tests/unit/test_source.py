"""The description of an instance for its workers."""

import ast
import subprocess
import sys
import threading
from pathlib import Path

import litplex as ls
import pytest
from litplex import _handover


class API(ls.LitAPI):
    handle: object = None

    def predict(self, x):
        return x


def test_an_instance_of_a_module_is_pickled():
    assert _handover.source_of(API(), 0, 0, "/a")["kind"] == "pickle"


def test_an_instance_that_cannot_reach_its_worker_names_the_attribute(monkeypatch):
    monkeypatch.setattr(_handover, "script", lambda: {"file": None})
    api = API()
    api.handle = threading.Lock()
    with pytest.raises(ValueError, match=r"`handle` \(a lock\).*`setup\(device\)`"):
        _handover.source_of(api, 0, 0, "/a")


def test_an_old_python_reads_which_version_a_worker_needs():
    start = Path(ls.__file__).parent / "_worker" / "__main__.py"
    ast.parse(start.read_text("utf-8"), feature_version=(3, 5))
    pretends = (
        "import runpy, sys; sys.version_info = (3, 8, 18); sys.version = '3.8.18 (old)'; "
        f"runpy.run_path({str(start)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", pretends], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "needs Python 3.9 or later" in done.stderr and "is Python 3.8.18;" in done.stderr
    assert "Traceback" not in done.stderr


def test_public_names():
    assert len(ls.__all__) == len(set(ls.__all__))
    assert all(getattr(ls, name) for name in ls.__all__)
