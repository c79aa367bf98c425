"""Programs started in other ways than ``python server.py``, and processes of their workers."""

import py_compile
import socket
import subprocess
import sys
import zipapp

import httpx
import pytest
from conftest import PRELUDE, Server, command_of, descendants, wait_until

PROGRAM = (
    PRELUDE
    + """
import os, sys, warnings

class Flags(ls.LitAPI):
    def predict(self, x):
        f = sys.flags
        return [f.optimize, f.dev_mode, sys.warnoptions, sys._xoptions, __debug__, sys.argv[1:]]

if __name__ == "__main__":
    ls.LitServer(Flags()).run(port=0)
"""
)


RUN_PATH = """
import runpy, sys

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "server.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        ([], [0, False, [], {}, True]),
        (["-O"], [1, False, [], {}, False]),
        (
            ["-X", "dev", "-W", "ignore::ImportWarning"],
            [0, True, ["default", "ignore::ImportWarning"], {"dev": True}, True],
        ),
        (["-m", "cProfile"], [0, False, [], {}, True]),
        (["-m", "pdb", "-c", "continue"], [0, False, [], {}, True]),
        (["-m", "runpy_of"], [0, False, [], {}, True]),
    ],
    ids=["plain", "-O", "-X dev", "cProfile", "pdb", "runpy"],
)
def test_workers_run_the_program_as_it_was_started(run, program, tmp_path, flags, seen):
    (tmp_path / "runpy_of.py").write_text(RUN_PATH)
    server = run([sys.executable, *flags, program, "a"], kind=Server).wait_until_ready()
    assert server.post("/predict", json=1).json() == [*seen, ["a"]]


def test_a_compiled_program_is_served(run, program, tmp_path):
    compiled = py_compile.compile(str(program), str(tmp_path / "compiled.pyc"))
    program.unlink()
    server = run([sys.executable, compiled], kind=Server).wait_until_ready()
    assert server.post("/predict", json=1).json()[0] == 0


def test_a_module_of_a_package_is_served(run, program, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").touch()
    (tmp_path / "package/__main__.py").write_text("from . import name\n" + PROGRAM)
    (tmp_path / "package/name.py").touch()
    server = run([sys.executable, "-m", "package"], kind=Server).wait_until_ready()
    assert server.post("/predict", json=1).json()[0] == 0


def test_a_program_that_cannot_run_again_is_refused_at_once(program, tmp_path):
    (tmp_path / "app").mkdir()
    program.rename(tmp_path / "app/__main__.py")
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    commands = {
        "-c": ([sys.executable, "-c", PROGRAM], None),
        "stdin": ([sys.executable, "-"], PROGRAM),
        "zip": ([sys.executable, str(tmp_path / "app.pyz")], None),
    }
    for name, (command, text) in commands.items():
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 1, name
        assert "put it into a module and import it from there" in done.stderr, name
        assert "Traceback" not in done.stderr, name


@pytest.mark.parametrize("closed", [">&-", "<&-", ">&- 2>&- <&-"])
def test_a_program_with_closed_streams_is_served(run, program, free_port, closed):
    program.write_text(program.read_text().replace("port=0", f"port={free_port}"))
    run(["sh", "-c", f"exec {sys.executable} {program} {closed}"])
    url = f"http://127.0.0.1:{free_port}/predict"

    def is_served():
        try:
            return httpx.post(url, json=1).status_code == 200
        except httpx.TransportError:
            return False

    wait_until(is_served)


CHILDREN = """
    import asyncio, ctypes, multiprocessing, os, signal, subprocess, sys

    def block(begun):
        # No signal interrupts the wait for a mutex, so no handler of Python's runs in it.
        mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        begun.set()
        lock(mutex)

    class Children(ls.LitAPI):
        def predict(self, x):
            if x == "signal":
                child = subprocess.Popen(["sleep", "30"])
                child.send_signal(signal.SIGINT)
                return child.wait(10)
            if x == "variables":
                names = subprocess.run(["env"], capture_output=True, text=True).stdout
                return [n for n in names.splitlines() if "UNBUFFERED" in n or "LITPLEX" in n]
            if x == "files":
                code = "import os; print(sorted(os.listdir('/proc/self/fd'))[:4])"
                child = [sys.executable, "-c", code]
                return subprocess.run(child, capture_output=True, text=True).stdout
            if x == "blocked":
                fork = multiprocessing.get_context("fork")
                begun = fork.Event()
                child = fork.Process(target=block, args=(begun,))
                child.start()
                begun.wait()
                child.terminate()
                child.join(10)
                child.kill()
                return child.exitcode
            with multiprocessing.get_context(x).Pool(2) as pool:
                return pool.map(abs, [-1, -2])

    class Tasks(ls.LitAPI):
        def setup(self, device):
            asyncio.get_event_loop().create_task(self.fill())

        async def fill(self):
            self.queue = asyncio.Queue()
            for n in range(100):
                await self.queue.put(n)

        async def predict(self, x):
            await asyncio.sleep(0.01)
            return await self.queue.get()

    servers = ls.LitServer(Children(), path="/children"), ls.LitServer(Tasks(), path="/tasks")
    ls.run_servers(*servers, port=0)
"""


def test_processes_of_workers_start_as_those_of_the_program(serve):
    server = serve(CHILDREN, env={"PYTHONUNBUFFERED": ""})
    assert server.post("/children", json="signal").json() == -2
    assert server.post("/children", json="variables").json() == ["PYTHONUNBUFFERED="]
    assert server.post("/children", json="files").json() == "['0', '1', '2', '3']\n"
    assert server.post("/children", json="blocked").json() == -15
    assert server.post("/tasks", json=1).json() == 0
    for method in ("spawn", "forkserver", "fork"):
        answer = server.post("/children", json=method)
        assert answer.json() == [1, 2], method
    # The script has no guard, and reads about it once.
    assert server.output.count('if __name__ == "__main__"') <= 2
    assert server.output.count("listening on") == 1


DEFINED = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    def square(x):
        return x * x

    class Times:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, x):
            return Times(self.factor * x)

        @staticmethod
        def one():
            return 1

        class Inner:
            pass

    Times.Inner.outer = Times

    class Pools(ls.LitAPI):
        def setup(self, device):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                self.first = list(pool.map(square, [5]))

        def predict(self, x):
            if x == "modules":
                return [each.__module__ for each in (square, Times, Times.one, Times.Inner, Pools)]
            with ProcessPoolExecutor(1, multiprocessing.get_context(x)) as pool:
                squares = list(pool.map(square, [2, 3]))
                products = [each.factor for each in pool.map(Times(3), [2, 3])]
                return self.first, squares, products

    if __name__ == "__main__":
        ls.LitServer(Pools()).run(port=0)
"""


def test_definitions_of_the_program_belong_to_its_main_module_in_workers_too(serve):
    """Pools that pickle objects of `__main__` by value, as joblib's do, depend on that name."""
    server = serve(DEFINED)
    assert server.post("/predict", json="modules").json() == ["__main__"] * 5
    for method in ("spawn", "forkserver", "fork"):
        assert server.post("/predict", json=method).json() == [[25], [4, 9], [6, 9]], method


def test_a_large_object_is_held_once(serve):
    server = serve(
        """
        class Large(ls.LitAPI):
            def __init__(self):
                super().__init__()
                self.weights = os.urandom(1 << 20) * 120

            def predict(self, x):
                return len(self.weights)

        import os
        if __name__ == "__main__":
            ls.LitServer(Large(), workers_per_device=2).run(port=0)
        """
    )
    assert server.post("/predict", json=1).json() == 120 << 20
    assert "126 MB, most of it in `weights`; load that in `setup(device)`" in server.output
    (binary,) = [pid for pid in descendants(server.process.pid) if "--program" in command_of(pid)]
    with open(f"/proc/{binary}/status", encoding="utf-8") as status:
        held = next(line for line in status if line.startswith("VmHWM"))
    assert int(held.split()[1]) < 100 * 1024
