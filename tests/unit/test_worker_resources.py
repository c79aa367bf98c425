"""What the worker applies of its order before user code runs."""

import os

import pytest

SAYS = """
    class API(ls.LitAPI):
        def predict(self, expression):
            return eval(expression)
"""


def ask(worker, expression):
    worker.request(1, expression)
    return worker.answers(1)[1]


def test_a_model_knows_its_threads(worker):
    assert ask(worker(SAYS, order={"threads": 3}), "self.threads") == (200, 3)


def test_an_attribute_of_the_models_own_stays(worker):
    model = """
        class API(ls.LitAPI):
            def setup(self, device):
                self.threads = "mine"

            def predict(self, x):
                return self.threads
    """
    assert ask(worker(model, order={"threads": 3}), None) == (200, "mine")


def test_cores_are_set_before_the_model_is_imported(worker):
    core = min(os.sched_getaffinity(0))
    model = "import os\nCORES = sorted(os.sched_getaffinity(0))\n" + SAYS.replace("\n    ", "\n")
    assert ask(worker(model, order={"cpu_affinity": [core]}), "CORES") == (200, [core])


def test_cores_that_the_system_refuses_fail_the_start(worker):
    failed = worker(SAYS, order={"cpu_affinity": [1023]}).traits
    assert "cannot run on the cores [1023] (`cpu_affinity`)" in failed["reason"]


# Stands in for the real one, which is large.
ONNXRUNTIME = """
class SessionOptions:
    intra_op_num_threads = inter_op_num_threads = 0
"""

USES_ONNXRUNTIME = """
    class API(ls.LitAPI):
        def predict(self, x):
            options = ls.onnxruntime_options()
            made = options["sess_options"]
            return made.intra_op_num_threads, made.inter_op_num_threads, options["providers"]
"""


@pytest.fixture
def onnxruntime(tmp_path):
    (tmp_path / "onnxruntime.py").write_text(ONNXRUNTIME)


def test_onnx_runtime_is_told_the_threads(worker, onnxruntime):
    told = ask(worker(USES_ONNXRUNTIME, order={"threads": 2}), None)
    assert told == (200, [2, 1, ["CPUExecutionProvider"]])


def test_onnx_runtime_is_told_the_gpu(worker, onnxruntime):
    told = ask(worker(USES_ONNXRUNTIME, order={"threads": 2}, device="cuda:1"), None)
    cuda = ["CUDAExecutionProvider", {"device_id": 1}]
    assert told == (200, [2, 1, [cuda, "CPUExecutionProvider"]])
