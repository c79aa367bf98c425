"""The source files of a process: it reports what it compiles, whatever Python has cached."""

import hashlib
import importlib
import importlib.machinery
import os
import py_compile
import sys
import time

import pytest
from litplex import _capture
from litplex._launched.sources import Sources


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Sources that follow imports from the directory of the test."""
    loader = importlib.machinery.SourceFileLoader
    monkeypatch.setattr(loader, "get_code", loader.get_code)
    monkeypatch.setattr(_capture, "read", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    found = Sources()
    found.new()
    found.follow()
    yield found
    for name in set(sys.modules) - known:
        del sys.modules[name]


def save(path, value, age=0.0):
    """Saves a module so many seconds ago."""
    path.write_text(f"VALUE = {value}\n")
    saved = time.time() - age
    os.utime(path, (saved, saved))


def load(name):
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name).VALUE


def reported(sources, path):
    return {file["path"]: file["digest"] for file in sources.new()}.get(str(path))


def digest(value):
    return hashlib.sha256(f"VALUE = {value}\n".encode()).hexdigest()


def test_a_file_is_reported_once_and_again_with_another_text(sources, tmp_path):
    path = tmp_path / "once.py"
    save(path, 1)
    assert load("once") == 1
    assert reported(sources, path) == digest(1)
    assert sources.new() == []
    save(path, 2)
    assert sources.new() == [], "it was not loaded again"
    assert load("once") == 2
    assert reported(sources, path) == digest(2)
    assert {"path": str(path), "digest": digest(2)} in sources.loaded()


def test_a_module_that_was_written_for_one_import_is_not_reported(sources, tmp_path):
    path = tmp_path / "passing.py"
    save(path, 1)
    assert load("passing") == 1
    path.unlink()
    assert reported(sources, path) is None
    save(path, 2)
    assert load("passing") == 2
    assert reported(sources, path) == digest(2)


@pytest.mark.parametrize("age", [0.0, 60.0])
def test_two_saves_in_a_second_of_the_same_length_are_two(sources, tmp_path, age):
    path = tmp_path / "fast.py"
    at = int(time.time() - age) + 0.1
    for value in (1, 2, 3):
        path.write_text(f"VALUE = {value}\n")
        os.utime(path, (at + value / 10, at + value / 10))
        if value == 2:
            # As Python caches it, right after the save.
            cache = py_compile.compile(str(path))
            assert cache is not None
            os.utime(cache, (at + 0.25, at + 0.25))
    assert load("fast") == 3
    assert reported(sources, path) == digest(3)


def test_the_cache_of_a_file_that_was_saved_long_ago_is_used(sources, tmp_path, monkeypatch):
    path = tmp_path / "old.py"
    save(path, 1, age=60)
    assert load("old") == 1
    compiled = []
    loader = importlib.machinery.SourceFileLoader
    inherited = loader.source_to_code

    def source_to_code(self, data, path, **options):
        compiled.append(path)
        return inherited(self, data, path, **options)

    monkeypatch.setattr(loader, "source_to_code", source_to_code)
    assert load("old") == 1
    assert compiled == []
    assert reported(sources, path) == digest(1)
