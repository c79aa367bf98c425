"""Callbacks, logging and debugging of programs written for LitServe."""

import io
import logging
import os
import pickle
import pty
import subprocess
import sys

import litplex
import litplex.compat
import pytest
from litplex.compat import callbacks, connector, utils
from litplex.compat.callbacks.defaults import PredictionTimeLogger
from litplex.compat.callbacks.defaults.metric_callback import RequestTracker


@pytest.fixture
def log():
    """The output of the logger ``litserve``, which is restored after the test."""
    logger = logging.getLogger("litserve")
    before = logger.level, logger.handlers[:], logger.propagate
    stream = io.StringIO()
    utils.configure_logging(format="%(levelname)s %(message)s", stream=stream)
    yield stream
    level, logger.handlers[:], logger.propagate = before
    # Not the attribute alone: it is remembered which levels are written.
    logger.setLevel(level)


class Recorder(callbacks.Callback):
    def __init__(self):
        self.seen = []

    def on_before_predict(self, lit_api):
        self.seen.append(lit_api)


class Broken(callbacks.Callback):
    def on_before_predict(self, lit_api):
        raise ValueError("boom")


def test_every_event_is_a_method_that_does_nothing():
    runner = callbacks.CallbackRunner([callbacks.NoopCallback(), callbacks.Callback()])
    for event in callbacks.EventTypes:
        assert getattr(callbacks.NoopCallback(), event.value)("anything", at="all") is None
        runner.trigger_event(event.value, lit_api=None)
    assert len(callbacks.EventTypes) == 12


def test_a_runner_tells_all_callbacks_and_logs_what_they_raise(log):
    recorder = Recorder()
    callbacks.CallbackRunner([Broken(), recorder]).trigger_event("on_before_predict", lit_api=7)
    assert recorder.seen == [7]
    assert "ERROR on_before_predict of the callback" in log.getvalue()
    assert "ValueError: boom" in log.getvalue()


@pytest.mark.parametrize("wrong", [5, [5], Recorder, (Recorder(),)])
def test_a_runner_takes_callbacks_alone(wrong):
    with pytest.raises(ValueError, match="Invalid callback type"):
        callbacks.CallbackRunner(wrong)


def test_ready_made_callbacks_log(log):
    timer = pickle.loads(pickle.dumps(PredictionTimeLogger()))
    timer.on_before_predict(lit_api=None)
    timer.on_after_predict(lit_api=None)
    RequestTracker().on_request(active_requests=3, litserver=None)
    assert log.getvalue() == "INFO Prediction took 0.00 seconds\nINFO Active requests: 3\n"


def test_logging_is_configured(log, capsys):
    logger = logging.getLogger("litserve.anything")
    logger.debug("too low")
    utils.set_log_level("DEBUG")
    logger.debug("high enough")
    extra = io.StringIO()
    utils.add_log_handler(logging.StreamHandler(extra))
    logger.info("twice")
    assert log.getvalue() == "DEBUG high enough\nINFO twice\n"
    assert extra.getvalue() == "twice\n"
    utils.configure_logging(logging.ERROR)
    logger.error("to standard output")
    assert capsys.readouterr().out.endswith("to standard output\n")


def test_rich_logs_need_rich(log, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.logging", None)
    utils.configure_logging(use_rich=True)
    assert "`rich` is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "is_there"),
    [("json", True), ("json.decoder", True), ("no_such", False), ("no_such.module", False)],
)
def test_packages_are_found_without_an_import(name, is_there):
    assert utils.is_package_installed(name) is is_there


def test_states_have_the_names_of_litserve():
    assert utils.LitAPIStatus.OK == "OK"
    assert utils.WorkerSetupStatus.READY == "ready"
    assert utils.LoopResponseType("STREAMING") is utils.LoopResponseType.STREAMING


STOPS = """
from litplex.compat.utils import set_trace, set_trace_if_debug

def predict(x):
    set_trace_if_debug()
    set_trace()
    return x

print(predict(4), flush=True)
"""


def stop(terminal, **env):
    return subprocess.Popen(
        [sys.executable, "-c", STOPS],
        env={**os.environ, "LITPLEX_TERMINAL": terminal, **env},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("debug", "stops"), [("0", 1), ("1", 2)])
def test_the_debugger_talks_to_the_terminal_of_the_server(debug, stops):
    ours, theirs = pty.openpty()
    try:
        process = stop(os.ttyname(theirs), LITSERVE_DEBUG=debug)
        os.write(ours, b"x = x + 1\ncontinue\n" * stops)
        output, errors = process.communicate(timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (output, errors) == (f"{4 + stops}\n", "")


def test_without_a_terminal_the_program_goes_on():
    output, errors = stop("/dev/no-such-terminal").communicate(timeout=30)
    assert output == "4\n"
    assert errors.count("set_trace: no terminal to debug in") == 1


@pytest.mark.parametrize("name", ["Callback", "Logger", "set_trace", "test_examples"])
def test_names_that_programs_use_exist_under_both_imports(name):
    assert getattr(litplex, name) is getattr(litplex.compat, name)


def test_modules_are_attributes_as_imports_make_them():
    for name in (
        "api",
        "callbacks",
        "connector",
        "loops",
        "middlewares",
        "server",
        "specs",
        "utils",
    ):
        assert getattr(litplex.compat, name).__name__ == f"litplex.compat.{name}"
    assert litplex.compat.__about__.__version__ == litplex.compat.__version__


def test_an_exception_that_can_be_pickled_is_made_of_another():
    error = utils.PickleableHTTPException.from_exception(litplex.HTTPException(418, "tea"))
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, litplex.HTTPException)
    assert (copy.status_code, copy.detail) == (418, "tea")


def test_classes_that_read_queues_are_refused_with_a_reason():
    with pytest.raises(
        ImportError, match=r"no `litserve\.utils\.ResponseBufferItem`: litplex owns"
    ):
        utils.ResponseBufferItem  # noqa: B018
    with pytest.raises(AttributeError):
        utils.no_such_name  # noqa: B018


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Writes a program ``nvidia-smi`` that prints a text, and clears the cached result."""

    def write(text, status=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\nexit {status}\n")
        program.chmod(0o755)
        connector.check_cuda_with_nvidia_smi.cache_clear()

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield write
    connector.check_cuda_with_nvidia_smi.cache_clear()


TWO_GPUS = """\
GPU 0: NVIDIA H100 (UUID: GPU-11)
  MIG 1g.10gb Device 0: (UUID: MIG-1)
GPU 1: NVIDIA H100 (UUID: GPU-22)"""


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 2), ("0", 1), ("1,7", 1), ("GPU-22", 1), ("9", 0), ("", 2)]
)
def test_gpus_are_counted(smi, monkeypatch, visible, count):
    smi(TWO_GPUS)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert connector.check_cuda_with_nvidia_smi() == count


def test_without_nvidia_smi_there_are_no_gpus(smi, monkeypatch):
    smi("broken", status=1)
    assert connector.check_cuda_with_nvidia_smi() == 0
    connector.check_cuda_with_nvidia_smi.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert connector.check_cuda_with_nvidia_smi() == 0
