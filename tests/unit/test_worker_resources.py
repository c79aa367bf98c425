"""The resource settings that a worker applies before user code runs."""

import os
import textwrap

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

    def __init__(self):
        self.entries = {}

    def add_session_config_entry(self, name, value):
        self.entries[name] = value

    def get_session_config_entry(self, name):
        if name not in self.entries:
            raise RuntimeError(f"SessionOptions does not have configuration with key: {name}")
        return self.entries[name]

class InferenceSession:
    def __init__(self, path_or_bytes, sess_options=None, providers=None, **kwargs):
        self.options = sess_options
        self.given = path_or_bytes, providers, kwargs
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


def test_onnx_runtime_gets_the_number_of_threads(worker, onnxruntime):
    told = ask(worker(USES_ONNXRUNTIME, order={"threads": 2}), None)
    assert told == (200, [2, 1, ["CPUExecutionProvider"]])


SPINNING = ["session.intra_op.allow_spinning", "session.inter_op.allow_spinning"]

MAKES_SESSIONS = """
    from onnxruntime import InferenceSession, SessionOptions

    class Options(SessionOptions):
        def __init__(self, threads, **entries):
            super().__init__()
            self.intra_op_num_threads = threads
            self.entries = {name.replace("__", "."): value for name, value in entries.items()}

    class API(ls.LitAPI):
        def predict(self, expression):
            session = eval(expression)
            options = session.options
            if options is not None:
                options = [options.intra_op_num_threads, options.entries]
            return options, session.given
"""


def test_sessions_do_not_spin_where_workers_share_cores(worker, onnxruntime):
    shared = worker(MAKES_SESSIONS, order={"threads": 1, "shared_cores": 2})
    quiet = dict.fromkeys(SPINNING, "0")
    spins = "Options(0, session__intra_op__allow_spinning='1')"
    made = [
        ("InferenceSession('a')", 2, quiet, ["a", None, {}]),
        ("InferenceSession('a', None, ['p'])", 2, quiet, ["a", ["p"], {}]),
        ("InferenceSession(path_or_bytes='a', x=1)", 2, quiet, ["a", None, {"x": 1}]),
        ("InferenceSession('a', Options(1))", 1, quiet, ["a", None, {}]),
        (f"InferenceSession('a', {spins})", 2, {**quiet, SPINNING[0]: "1"}, ["a", None, {}]),
    ]
    for id, (session, threads, entries, given) in enumerate(made):
        shared.request(id, session)
        assert shared.answers(1)[id] == (200, [[threads, entries], given]), session


def test_sessions_of_a_worker_with_cores_of_its_own_are_as_made(worker, onnxruntime):
    own = worker(MAKES_SESSIONS, order={"threads": 2})
    assert ask(own, "InferenceSession('a')") == (200, [None, ["a", None, {}]])


def test_onnx_runtime_gets_the_gpu(worker, onnxruntime):
    told = ask(worker(USES_ONNXRUNTIME, order={"threads": 2}, device="cuda:1"), None)
    cuda = ["CUDAExecutionProvider", {"device_id": 1}]
    assert told == (200, [2, 1, [cuda, "CPUExecutionProvider"]])


# Fakes of the frameworks, which record their settings; no GPU is needed.
TORCH = """
calls = []

class cuda:
    is_available = staticmethod(lambda: True)
    set_per_process_memory_fraction = staticmethod(lambda *args: calls.append(args))
"""

TENSORFLOW = """
calls = []

class config:
    list_physical_devices = staticmethod(lambda kind: [kind + "0", kind + "1"])
    LogicalDeviceConfiguration = dict
    set_logical_device_configuration = staticmethod(lambda *args: calls.append(args))
"""

SHARE = {"gpu_memory_fraction": 0.3}


@pytest.fixture
def frameworks(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(TORCH)
    (tmp_path / "tensorflow.py").write_text(TENSORFLOW)


@pytest.mark.parametrize("where", ["at the top", "in setup"])
def test_torch_gets_its_share_before_it_is_used(worker, frameworks, where):
    model = """
        class API(ls.LitAPI):
            def setup(self, device):
                import torch
                self.told = list(torch.calls)

            def predict(self, x):
                import inspect
                import torch
                return self.told, torch.calls, inspect.getsource(torch).splitlines()[1]
    """
    top = "import torch\n" if where == "at the top" else ""
    model = top + textwrap.dedent(model)
    told = ask(worker(model, order=SHARE, device="cuda:1"), None)
    assert told == (200, [[[0.3, 1]], [[0.3, 1]], "calls = []"])


def test_tensorflow_gets_its_share(worker, frameworks):
    model = """
        from litplex import _resources
        _resources.gpu_memory_bytes = lambda: 5 << 20

        class API(ls.LitAPI):
            def predict(self, x):
                import tensorflow
                return tensorflow.calls
    """
    told = ask(worker(model, order=SHARE, device="cuda:1"), None)
    assert told == (200, [["GPU1", [{"memory_limit": 5}]]])


def test_onnx_runtime_gets_the_share(worker, onnxruntime):
    model = """
        from litplex import _resources
        _resources.gpu_memory_bytes = lambda: 5 << 20

        class API(ls.LitAPI):
            def predict(self, x):
                return ls.onnxruntime_options()["providers"][0]
    """
    told = ask(worker(model, order=SHARE, device="cuda:0"), None)
    assert told == (200, ["CUDAExecutionProvider", {"device_id": 0, "gpu_mem_limit": 5 << 20}])


def test_a_torch_without_a_gpu_reports_that(worker, frameworks, tmp_path):
    blind = TORCH.replace("lambda: True", "lambda: False")
    (tmp_path / "torch/__init__.py").write_text(blind)
    blind = worker(SAYS, order=SHARE, device="cuda:0")
    assert ask(blind, "__import__('torch').calls") == (200, [])
    blind.wait_for("`gpu_memory_fraction` does not limit PyTorch on cuda:0: it sees no GPU")


def test_a_framework_that_is_not_there_is_not_found(worker):
    model = """
        class API(ls.LitAPI):
            def predict(self, x):
                import importlib.util
                try:
                    import torch
                except ImportError:
                    return importlib.util.find_spec("torch")
    """
    assert ask(worker(model, order=SHARE, device="cuda:0"), None) == (200, None)


@pytest.mark.parametrize(("order", "device"), [(SHARE, "cpu"), ({}, "cuda:0")])
def test_without_a_share_no_import_is_watched(worker, order, device):
    finders = "[type(finder).__name__ for finder in __import__('sys').meta_path]"
    status, found = ask(worker(SAYS, order=order, device=device), finders)
    assert (status, "_AfterImport" in found) == (200, False)


# Stands in for the real one: contexts that record their numbers of threads.
LLAMA_CPP = {
    "__init__": "from .llama import Llama\n",
    "llama_cpp": """
        def llama_n_threads(context):
            return context[0]

        def llama_n_threads_batch(context):
            return context[1]

        def llama_set_n_threads(context, n_threads, n_threads_batch):
            context[:] = n_threads, n_threads_batch
    """,
    "_internals": """
        from . import llama_cpp

        class LlamaContext:
            def __init__(self, *numbers):
                self.ctx = list(numbers)

            def decode(self, batch):
                return list(self.ctx)

            encode = decode
    """,
    "llama": """
        from . import _internals

        class Llama:
            def __init__(self, path, *, n_threads=None, n_threads_batch=None):
                self.context = _internals.LlamaContext(n_threads, n_threads_batch)
    """,
}

USES_LLAMA_CPP = """
    from litplex._worker._idle_cores import IdleCores
    from llama_cpp import Llama

    IdleCores.number = lambda self, share: max(share, number)

    class API(ls.LitAPI):
        def setup(self, device):
            self.models = [Llama("a"), Llama("a", n_threads=self.threads, n_threads_batch=7)]
            self.models.append(Llama("a", n_threads=7))

        def predict(self, idle):
            global number
            number = idle
            return [model.context.decode(None) for model in self.models]
"""


@pytest.fixture
def llama_cpp(tmp_path):
    package = tmp_path / "llama_cpp"
    package.mkdir()
    for name, text in LLAMA_CPP.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))


def test_llama_cpp_gets_the_share_and_the_cores_that_are_idle(worker, llama_cpp):
    cores = len(os.sched_getaffinity(0))
    shared = worker(USES_LLAMA_CPP, order={"threads": 1, "shared_cores": cores})
    numbers = [ask(shared, idle)[1] for idle in (0, 5, 3, 0)]
    assert numbers == [[[used, used], [used, 7], [7, used]] for used in (1, 5, 3, 1)]


def test_llama_cpp_gets_the_share_where_idle_cores_are_not_known(worker, llama_cpp):
    # As with a quota of CPU time.
    cores = len(os.sched_getaffinity(0)) + 1
    shared = worker(USES_LLAMA_CPP, order={"threads": 1, "shared_cores": cores})
    assert ask(shared, 5) == (200, [[1, 1], [1, 7], [7, 1]])


def test_llama_cpp_of_a_worker_with_cores_of_its_own_is_as_made(worker, llama_cpp):
    own = worker(USES_LLAMA_CPP, order={"threads": 2})
    assert ask(own, 5) == (200, [[None, None], [2, 7], [7, None]])


def test_another_version_of_llama_cpp_is_left_as_it_is(worker, tmp_path):
    package = tmp_path / "llama_cpp"
    package.mkdir()
    (package / "__init__.py").write_text("from .llama import Llama")
    old = "class Llama:\n    def __init__(self, path, n_threads=None): self.told = n_threads\n"
    (package / "llama.py").write_text(old)
    model = """
        from llama_cpp import Llama

        class API(ls.LitAPI):
            def predict(self, x):
                return Llama("a").told, Llama("a", n_threads=7).told
    """
    cores = len(os.sched_getaffinity(0))
    shared = worker(model, order={"threads": 1, "shared_cores": cores})
    assert ask(shared, None) == (200, [1, 7])
