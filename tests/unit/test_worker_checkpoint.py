"""A worker that hibernates with memory on a GPU: what it asks the driver, and when.

The driver is a model of NVIDIA's: it has the states of the documentation of process checkpoints,
and no GPU. tests/e2e/test_gpu.py does it with a real one.
"""

import subprocess

import pytest
from litplex._worker.wire import frames
from test_worker_hibernates import hibernate

DRIVER = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { RUNNING, LOCKED, CHECKPOINTED };
static int state = RUNNING, is_initialized = 0;
static char failing[64];

void start(const char *function) { is_initialized = 1; strcpy(failing, function); }

static int step(const char *function, int process, int from, int to) {
    dprintf(2, "%s\n", function);
    if (!is_initialized) return 3;
    if (process != getpid()) return 1;
    if (state != from) return 401;
    if (strcmp(function, failing) == 0) return 801;
    state = to;
    return 0;
}

int cuGetErrorString(int status, const char **text) {
    *text = status == 801 ? "operation not supported" : "other";
    return 0;
}

#ifndef OLD
int cuCheckpointProcessLock(int process, unsigned *args) {
    if (args[0] == 0) return 1;
    for (int at = 1; at < 16; at++) if (args[at] != 0) return 1;
    return step("lock", process, RUNNING, LOCKED);
}
int cuCheckpointProcessCheckpoint(int process, void *args) {
    return args ? 1 : step("checkpoint", process, LOCKED, CHECKPOINTED);
}
int cuCheckpointProcessRestore(int process, void *args) {
    return args ? 1 : step("restore", process, CHECKPOINTED, LOCKED);
}
int cuCheckpointProcessUnlock(int process, void *args) {
    return args ? 1 : step("unlock", process, LOCKED, RUNNING);
}
#endif
"""

MODEL = """
    import ctypes

    class API(ls.LitAPI):
        def setup(self, device):
            driver = ctypes.CDLL({library!r})
            failing = {failing!r}
            if failing is not None:
                driver.start(failing.encode())

        def predict(self, x):
            return x

        def teardown(self):
            say("torn down")
"""

SETUP = {"device": "cuda:0"}


@pytest.fixture
def on_gpu(worker, tmp_path):
    """Returns a function that starts a worker whose model has used a driver with one function
    that fails."""

    def start(failing="", is_old=False, device="cuda:0"):
        library = tmp_path / "driver.so"
        build = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, "-xc", "-"]
        defines = ["-DOLD"] if is_old else []
        subprocess.run([*build, *defines], input=DRIVER, text=True, check=True)
        text = MODEL.format(library=str(library), failing=failing)
        return worker(text, hibernates=True, calls=True, device=device)

    return start


def test_what_is_on_the_gpu_is_on_the_host_while_it_hibernates(on_gpu):
    server = on_gpu()
    assert server.traits["hibernates"] is True
    said = ""
    for _ in range(2):
        hibernate(server)
        said += "lock\ncheckpoint\n"
        assert server.errors == said
        server.send("data", frames.encode_message(frames.SETUP, SETUP))
        server.ready()
        said += "restore\nunlock\n"
        assert server.errors == said


def test_one_that_is_ended_while_its_memory_is_off_the_gpu_calls_nothing_that_uses_it(on_gpu):
    server = on_gpu()
    hibernate(server)
    server.hang_up()
    assert server.process.wait(15) == 0
    assert server.errors == "lock\ncheckpoint\n"


@pytest.mark.parametrize(
    ("failing", "steps"),
    [("lock", ["lock"]), ("checkpoint", ["lock", "checkpoint", "unlock"])],
)
def test_one_whose_memory_the_driver_keeps_ends_as_usual(on_gpu, failing, steps):
    server = on_gpu(failing)
    server.socks["data"].shutdown(1)
    server.send("control", frames.encode(frames.HIBERNATE))
    assert server.process.wait(15) == 0
    *said, why, last = server.errors.splitlines()
    assert (said, last) == (steps, "torn down")
    name = f"cuCheckpointProcess{failing.title()}"
    assert why == f"ends and does not hibernate: {name}: operation not supported (801)"


@pytest.mark.parametrize("failing", ["restore", "unlock"])
def test_one_whose_memory_cannot_come_back_ends_with_the_reason(on_gpu, failing):
    server = on_gpu(failing)
    hibernate(server)
    server.send("data", frames.encode_message(frames.SETUP, SETUP))
    assert server.process.wait(15) == 1
    name = f"cuCheckpointProcess{failing.title()}: operation not supported (801)"
    last = server.errors.splitlines()[-1]
    assert last == f"ends, because its memory cannot be moved back: {name}"


def test_an_old_driver_does_not_let_it_hibernate(on_gpu):
    assert "hibernates" not in on_gpu(is_old=True).traits


def test_a_worker_on_a_gpu_without_this_driver_does_not_hibernate(worker):
    text = "class API(ls.LitAPI):\n    def predict(self, x):\n        return x"
    assert "hibernates" not in worker(text, hibernates=True, device="cuda:0").traits


def test_a_worker_on_the_cpu_leaves_the_driver_alone_that_its_model_has_loaded(on_gpu):
    server = on_gpu(is_old=True, device="cpu")
    hibernate(server)
    server.hang_up()
    assert server.process.wait(15) == 0
    assert server.errors == "torn down\n"


def test_a_driver_that_was_loaded_and_not_used_has_nothing_to_move(on_gpu):
    server = on_gpu(failing=None)
    hibernate(server)
    assert server.errors == "lock\n"
    server.send("data", frames.encode_message(frames.SETUP, SETUP))
    server.ready()
    assert server.errors == "lock\n"
