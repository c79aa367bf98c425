"""The resources of workers: devices, threads, memory and their limits."""

import contextlib
import json
import os
import re
from pathlib import Path

import pytest
from conftest import parent_of, wait_until

SAYS = """
    import os

    class Says(ls.LitAPI):
        def predict(self, names):
            variables = [os.environ.get(name) for name in names]
            return [self.threads, sorted(os.sched_getaffinity(0)), *variables]

    def serve(*options):
        if __name__ == "__main__":
            servers = [ls.LitServer(Says(), path=f"/{n}", **o) for n, o in enumerate(options)]
            ls.run_servers(*servers, port=0)
"""

VARIABLES = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
OTHERS = ["POLARS_MAX_THREADS", "RAYON_NUM_THREADS"]

CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def clean(monkeypatch):
    """Removes the variables of the environment in which the tests run."""
    for name in [*VARIABLES, *OTHERS]:
        monkeypatch.delenv(name, raising=False)


def test_workers_share_the_cores_by_default(serve, clean, runtime, litplex):
    server = serve(
        f"{SAYS}\n    serve({{'workers_per_device': {len(CORES)}, 'accelerator': 'cpu'}}, "
        "{'threads': 7, 'env': {'MKL_NUM_THREADS': '9'}}, {'env': {'OMP_NUM_THREADS': '6'}})",
        env=runtime,
    )
    cores = len(CORES)
    every = str(cores)
    shown = [*VARIABLES, *OTHERS]
    assert server.post("/0", json=shown).json() == [1, CORES, "1", "1", "1", every, every]
    assert server.post("/1", json=shown).json() == [7, CORES, "7", "9", "7", "7", "7"]
    assert server.post("/2", json=shown).json() == [1, CORES, "6", "1", "1", every, every]
    said = [endpoint["threads"] for endpoint in server.client.get("/info").json()["endpoints"]]
    assert said == [1, 7, 1]
    listed = json.loads(litplex("ps", "--json")[1])["endpoints"]
    workers = [worker for endpoint in listed for worker in endpoint["workers"]]
    assert [worker["threads"] for worker in workers] == [1] * cores + [7, 1]
    note = f", a share of {cores} cores" if cores > 1 else ""
    assert f"CPU threads of each worker of /0, /2: 1{note}\n" in server.output
    assert "CPU threads of each worker of /1: 7\n" in server.output


def test_a_worker_alone_has_all_cores(serve, clean):
    server = serve(f"{SAYS}\n    serve({{}})")
    cores = len(CORES)
    told = server.post("/0", json=[*VARIABLES, *OTHERS]).json()
    assert told == [cores, CORES, *[str(cores)] * 5]


def test_variables_of_the_servers_environment_stay(serve, clean):
    server = serve(f"{SAYS}\n    serve({{'threads': 7}})", env={"OMP_NUM_THREADS": "5"})
    assert server.post("/0", json=VARIABLES).json() == [7, CORES, "5", "7", "7"]


def test_workers_keep_to_their_cores(serve, clean):
    server = serve(f"{SAYS}\n    serve({{'cpu_affinity': [{CORES[-1]}]}}, {{}})")
    assert server.post("/0", json=[]).json() == [1, [CORES[-1]]]
    assert server.post("/1", json=[]).json()[1] == CORES


def test_cores_that_are_not_there_are_refused(serve):
    server = serve(f"{SAYS}\n    serve({{'cpu_affinity': [1023]}}, {{}})", ready=False)
    assert server.wait() == 2
    assert "endpoint `/0`: `cpu_affinity` names core 1023" in server.output


PLACES = """
    import os

    class Places(ls.LitAPI):
        def predict(self, module):
            return [os.getcwd(), __import__(module).NAME]

    if __name__ == "__main__":
        server = ls.LitServer(Places(), path="/a", cwd="inner", pythonpath=["lib", "inner"])
        ls.run_servers(server, port=0)
"""


def test_workers_have_a_directory_and_modules_of_their_own(serve, tmp_path):
    for directory, module in (("lib", "both"), ("inner", "both"), ("inner", "one")):
        (tmp_path / directory).mkdir(exist_ok=True)
        (tmp_path / directory / f"{module}.py").write_text(f"NAME = {directory + module!r}\n")
    server = serve(PLACES)
    directory = str(tmp_path / "inner")
    assert server.post("/a", json="one").json() == [directory, "innerone"]
    assert server.post("/a", json="both").json() == [directory, "libboth"]


def test_directories_that_are_not_there_are_all_named(serve, tmp_path):
    (tmp_path / "inner").touch()
    server = serve(PLACES, ready=False)
    assert server.wait() == 2
    assert "`cwd` names" in server.output
    assert "/inner`, which is not a directory" in server.output
    assert "/lib`, which does not exist" in server.output


GROWS = """
    import os, subprocess, sys, time

    HOLDS = "import time; x = b'x' * 200_000_000; time.sleep(60)"

    class Grows(ls.LitAPI):
        def setup(self, device):
            if os.path.exists("big"):
                exec(HOLDS)

        def predict(self, how):
            if how == "itself":
                exec(HOLDS)
            if how == "child":
                subprocess.run([sys.executable, "-c", HOLDS])
            if how == "die":
                open("big", "w").close()
                os._exit(3)
            if how == "fork":
                held = b"x" * 60_000_000
                children = [os.fork() or (time.sleep(2), os._exit(0)) for _ in range(3)]
                for child in children:
                    os.waitpid(child, 0)
            return how

    class Other(ls.LitAPI):
        def predict(self, x):
            return os.getpid()

    def serve(**options):
        if __name__ == "__main__":
            grows = ls.LitServer(Grows(), path="/a", memory_limit="150MB", **options)
            ls.run_servers(grows, ls.LitServer(Other(), path="/b"), port=0)
"""

WATCHED = r"it used [12]\d\d\.\d MB and may use 150\.0 MB \(`memory_limit`\); it was killed"
ENFORCED = (
    r"it needed more than the 150\.0 MB that it may use \(`memory_limit`\); the kernel killed it"
)
EXCESS = f"(?:{WATCHED}|{ENFORCED})"


@pytest.mark.parametrize("how", ["itself", "child"])
def test_a_worker_that_uses_too_much_memory_is_replaced(serve, how):
    server = serve(f"{GROWS}\n    serve(idempotent=False)")
    other = server.post("/b", json=0).json()
    refused = server.post("/a", json=how)
    assert (refused.status_code, "died" in refused.text) == (502, True)
    server.wait_for_line(f"/a#0: gone: {EXCESS}; another is starting")
    assert server.post("/a", json="ok").json() == "ok"
    assert server.post("/b", json=0).json() == other


def test_a_request_that_uses_too_much_memory_twice_is_answered(serve):
    server = serve(f"{GROWS}\n    serve(workers_per_device=2, accelerator='cpu')")
    refused = server.post("/a", json="itself")
    assert (refused.status_code, "2 workers died" in refused.text) == (502, True)
    assert server.post("/a", json="ok").json() == "ok"


TOO_LARGE = """
    class Large(ls.LitAPI):
        def setup(self, device):
            self.weights = b"x" * 200_000_000

        def predict(self, x):
            return x

    if __name__ == "__main__":
        ls.LitServer(Large(), memory_limit="150MB").run(port=0)
"""


def test_a_model_that_is_larger_than_its_limit_ends_the_start(serve):
    for _ in range(2):
        server = serve(TOO_LARGE, ready=False)
        assert server.wait() != 0
        assert re.search(EXCESS, server.output), server.output
        assert "another is starting" not in server.output


def test_pages_that_forked_processes_share_count_once(serve):
    server = serve(f"{GROWS}\n    serve()")
    assert server.post("/a", json="fork").json() == "fork"
    assert "memory_limit" not in server.output


def test_a_start_that_uses_too_much_memory_ends_the_server(serve, tmp_path):
    (tmp_path / "big").touch()
    server = serve(f"{GROWS}\n    serve()", ready=False)
    assert server.wait() == 3
    assert re.search(f"endpoint `/a`: {EXCESS} before it was ready", server.output)


def delegated_cgroup():
    """Returns the cgroup in which the server may make others, where systemd gave one away."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    (own,) = [line.removeprefix("0::") for line in lines if line.startswith("0::")] or ["/"]
    above = Path(f"/sys/fs/cgroup{own}").parent
    for mark in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if own != "/" and os.getxattr(above, mark) == b"1":
                return above
    return None


@pytest.mark.skipif(
    not delegated_cgroup(),
    reason="needs a cgroup of systemd's with Delegate=memory and DelegateSubgroup=tests",
)
def test_the_kernel_keeps_a_worker_to_its_memory_where_it_may(serve):
    server = serve(f"{GROWS}\n    serve(idempotent=False)")
    above = delegated_cgroup()
    cgroup = f"litplex-{parent_of(server.workers()[0])}-"
    assert [*above.glob(f"{cgroup}*")]
    assert server.post("/a", json="child").status_code == 502
    server.wait_for_line(f"/a#0: gone: {ENFORCED}; another is starting")
    assert server.post("/a", json="ok").json() == "ok"
    assert server.stop() == 0
    wait_until(lambda: not [*above.glob(f"{cgroup}*")])


def test_later_starts_that_use_too_much_memory_come_ever_later(serve):
    server = serve(f"{GROWS}\n    serve(idempotent=False)")
    server.post("/a", json="die")
    server.wait_for_line(f"/a#0: gone: {EXCESS} before it was ready; another starts in 0\\.[1-9]")
    health = server.client.get("/health")
    says = "not ready\n/a: its model cannot be loaded"
    assert (health.status_code, health.text) == (503, says)


def test_an_isolated_worker_sees_no_gpu_that_is_not_its_own(serve):
    server = serve(f"{SAYS}\n    serve({{'accelerator': 'cpu', 'isolate_devices': True}})")
    assert server.post("/0", json=["CUDA_VISIBLE_DEVICES"]).json()[-1] == ""
