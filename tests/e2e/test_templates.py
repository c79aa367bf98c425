"""Workers that are forked from a process which has imported their modules."""

import os
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import LITPLEX, Server, descendants, is_alive, wait_until

# Each process that imports it, or is forked from one that did, says which one that was.
HEAVY = """
    import logging, os, sys

    PID = os.getpid()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("heavy: %(message)s"))
    log = logging.getLogger("heavy")
    log.addHandler(handler)
    log.propagate = False
"""

BUSY = """
    import threading, time
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
"""

MODEL = """
    import ctypes, os, random, signal, sys, threading

    def opened():
        numbers = os.listdir("/proc/self/fd")
        links = [f"/proc/self/fd/{number}" for number in numbers]
        links = [link for link in links if os.path.exists(link)]
        return {link[14:]: os.readlink(link).partition(":")[0] for link in links}

    def death_signal():
        number = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(number))
        return number.value

    class API(ls.LitAPI):
        def setup(self, device):
            import heavy
            self.heavy = heavy

        def predict(self, ask):
            if ask == "exit":
                os._exit(3)
            if ask == "grow":
                self.held = b"x" * 400_000_000
            if ask == "log":
                print("printed")
                self.heavy.log.warning("logged")
            if ask == "random":
                import numpy
                return [random.random(), float(numpy.random.rand())]
            if ask == "look":
                stacks = opened().pop("4")
                return {
                    "argv": sys.argv,
                    "command": open("/proc/self/cmdline").read(),
                    "flags": repr(sys.flags),
                    "path": sys.path,
                    "variables": dict(os.environ),
                    "directory": os.getcwd(),
                    "mask": os.umask(0o22),
                    "files": {number: file for number, file in opened().items() if number != "4"},
                    "leads": os.getpgid(0) == os.getpid(),
                    "session": os.getsid(0),
                    "parent": os.getppid(),
                    "threads": threading.active_count(),
                    "dies": death_signal(),
                    "handlers": [repr(signal.getsignal(n))[:20] for n in (2, 15, 17)],
                    "cores": sorted(os.sched_getaffinity(0)),
                    "size": self.threads,
                }
            return [os.getpid(), self.heavy.PID]

    def serve(*options, **others):
        if __name__ == "__main__":
            servers = [ls.LitServer(API(), **{"pythonpath": ["lib"], **each}) for each in options]
            ls.run_servers(*servers, port=0, **others)
"""

FORKED = r"%s#0: forked from a template in \d"


@pytest.fixture
def heavy(tmp_path):
    """Writes a module into a directory of the test's, where workers find it."""

    def write(text=HEAVY, name="heavy", directory="lib"):
        path = tmp_path / directory / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub("^    ", "", text, flags=re.M), encoding="utf-8")
        return path

    write()
    return write


def preloading(*modules, **options):
    return f"{{'path': '/a', 'preload': {list(modules)}, **{options}}}"


def test_a_forked_worker_is_like_one_that_was_started(serve, heavy):
    options = {"env": {"GIVEN": "1"}, "api_keys": {"ann": "env:KEY"}, "threads": 1}
    started = (
        preloading(path="/b", **options).replace("'/a'", "'/b'").replace("'path': '/b', ", "", 1)
    )
    program = f"{MODEL}\n    serve({preloading('heavy', **options)}, {started})"
    key = {"Authorization": "Bearer abcdefghijklmnop"}
    server = serve(program, env={"KEY": "abcdefghijklmnop"})
    server.wait_for_line(FORKED % "/a")

    def ask(path, question):
        return server.post(path, json=question, headers=key).json()

    pid, imported_by = ask("/a", "which")
    assert pid != imported_by, "it has imported the module itself"
    pid, imported_by = ask("/b", "which")
    assert pid == imported_by, "it was not started"
    one, other = ask("/a", "look"), ask("/b", "look")
    assert one == other
    assert one["variables"]["GIVEN"] == "1"
    assert "KEY" not in one["variables"]
    assert (one["leads"], one["dies"]) == (True, signal.SIGKILL)


def test_workers_of_equal_endpoints_share_a_template(serve, heavy):
    both = f"{preloading('heavy', workers_per_device=2)}, {preloading('heavy')}"
    server = serve(f"{MODEL}\n    serve({both})".replace("'/a'", "'/b'", 1))
    told = [server.post(path, json="which").json() for path in ("/a", "/b")]
    assert len({imported_by for _, imported_by in told}) == 1
    assert len(server.workers()) == 4


def test_a_worker_that_is_gone_is_replaced_by_a_forked_one(serve, heavy):
    server = serve(f"{MODEL}\n    serve({preloading('heavy', idempotent=False)})")
    before = server.post("/a", json="which").json()
    assert server.post("/a", json="exit").status_code == 502
    server.wait_for_line("/a#0: gone: its process exited with status 3; another is starting")
    after = server.post("/a", json="which").json()
    assert before[1] == after[1]
    os.kill(after[0], signal.SIGKILL)
    server.wait_for_line("/a#0: gone: its process was killed by signal 9")
    last = server.post("/a", json="which").json()
    assert (last[1], len({before[0], after[0], last[0]})) == (before[1], 3)
    assert server.stop() == 0
    assert not any(map(is_alive, (last[0], last[1])))


def test_without_its_template_a_worker_is_started(serve, heavy):
    server = serve(f"{MODEL}\n    serve({preloading('heavy', idempotent=False)})")
    _, template = server.post("/a", json="which").json()
    os.kill(template, signal.SIGKILL)
    server.wait_for_line("template: gone: its process was killed by signal 9")
    assert server.post("/a", json="exit").status_code == 502
    pid, imported_by = server.post("/a", json="which").json()
    assert template != imported_by
    # Another template is started after a while, and takes the next workers.
    wait_until(lambda: server.output.count("template: ready") == 2)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.output.count("/a#0: gone") == 2)
    pid, imported_by = server.post("/a", json="which").json()
    assert pid != imported_by


def test_a_template_that_hangs_is_ended(serve, heavy):
    server = serve(f"{MODEL}\n    serve({preloading('heavy', idempotent=False)})")
    _, template = server.post("/a", json="which").json()
    os.kill(template, signal.SIGSTOP)
    assert server.post("/a", json="exit").status_code == 502
    server.wait_for_line("template: gone: it hangs")
    pid, imported_by = server.post("/a", json="which").json()
    assert pid == imported_by
    assert not is_alive(template)


def test_nothing_outlives_a_killed_server(run, heavy, script, tmp_path):
    script(MODEL, "model.py")
    (tmp_path / "litplex.toml").write_text(
        'port = 0\n[[endpoint]]\npath = "/a"\napi = "model.py:API"\n'
        f'python = "{sys.executable}"\npythonpath = ["lib"]\npreload = ["heavy"]\n'
    )
    server = run([LITPLEX, "serve", "litplex.toml"], kind=Server).wait_until_ready()
    pid, template = server.post("/a", json="which").json()
    assert {pid, template} == set(descendants(server.process.pid))
    server.signal(signal.SIGKILL)
    wait_until(lambda: not is_alive(pid) and not is_alive(template))


def test_a_module_that_leaves_a_thread_is_not_preloaded(serve, heavy):
    heavy(BUSY, "busy")
    heavy("import os\nread, write = os.pipe()", "opens")
    heavy("import multiprocessing\nlock = multiprocessing.Lock()", "shares")
    heavy("import subprocess\nchild = subprocess.Popen(['sleep', '3600'])", "begets")
    modules = ["busy", "opens", "shares", "begets", "heavy"]
    server = serve(f"{MODEL}\n    serve({preloading(*modules)})")
    server.wait_for_line(
        "template: `busy` is not preloaded: after its import 1 further thread runs"
    )
    server.wait_for_line("template: `opens` is not preloaded: after its import it has opened pipe")
    server.wait_for_line("template: `shares` is not preloaded: after its import it shares memory")
    server.wait_for_line(
        "template: `begets` is not preloaded: after its import it has started a proc"
    )
    server.wait_for_line(FORKED % "/a")
    pid, imported_by = server.post("/a", json="which").json()
    assert pid != imported_by


def test_a_template_without_modules_is_none(serve, heavy):
    heavy(BUSY, "busy")
    server = serve(f"{MODEL}\n    serve({preloading('busy')})")
    pid, imported_by = server.post("/a", json="which").json()
    assert pid == imported_by
    assert server.workers() == [pid]


def test_threads_that_end_before_a_fork_are_none(serve, heavy):
    server = serve(
        f"{MODEL}\n    serve({preloading('numpy', 'heavy', idempotent=False, threads=4)})"
    )
    server.wait_for_line(FORKED % "/a")
    first = server.post("/a", json="random").json()
    assert server.post("/a", json="exit").status_code == 502
    second = server.post("/a", json="random").json()
    assert "not preloaded" not in server.output
    assert len({*first, *second}) == 4, "two workers have the same random numbers"


def test_a_module_that_cannot_be_imported_is_named(serve, heavy):
    heavy("raise RuntimeError('no licence')", "wrong")
    server = serve(f"{MODEL}\n    serve({preloading('wrong', 'missing', 'heavy')})")
    server.wait_for_line("`wrong` is not preloaded: its import raised RuntimeError: no licence")
    server.wait_for_line("`missing` is not preloaded: its import raised ModuleNotFoundError")
    pid, imported_by = server.post("/a", json="which").json()
    assert pid != imported_by


def test_a_module_that_has_changed_is_imported_anew(serve, heavy):
    server = serve(f"{MODEL}\n    serve({preloading('heavy', idempotent=False)})")
    _, template = server.post("/a", json="which").json()
    path = heavy(f"{HEAVY}\n    PID = 'changed'")
    assert server.post("/a", json="exit").status_code == 502
    server.wait_for_line(f"template: starts again: `{path}` has changed since its imports")
    assert server.post("/a", json="which").json()[1] == "changed"
    wait_until(lambda: not is_alive(template))


def test_output_of_a_forked_worker_names_it_and_its_requests(serve, heavy):
    server = serve(f"{MODEL}\n    serve({preloading('heavy')}, request_id=True)")
    server.post("/a", json="log", headers={"X-Request-Id": "one"})
    server.wait_for_line(r"/a#0 \[one\] \| printed")
    # By a handler that the module made in the template.
    server.wait_for_line(r"/a#0 \[one\] \| heavy: logged")


def test_memory_of_a_forked_worker_is_limited(serve, heavy):
    options = {"idempotent": False, "memory_limit": "250MB"}
    server = serve(f"{MODEL}\n    serve({preloading('heavy', **options)})")
    server.wait_for_line(FORKED % "/a")
    # It may answer before it is measured.
    server.post("/a", json="grow")
    server.wait_for_line(r"/a#0: gone: it (used|needed more than) .* \(`memory_limit`\)")
    assert server.post("/a", json="which").status_code == 200


def test_an_endpoint_that_sleeps_is_woken_with_what_its_workers_imported(serve, heavy, tmp_path):
    heavy(f"{HEAVY}\n    import time; time.sleep(0.5)", directory="lib/site-packages")
    (tmp_path / "lib" / "heavy.py").unlink()
    options = {"min_workers": 0, "max_workers": 1, "keep_alive": 1}
    sleepy = f"{{'path': '/a', 'pythonpath': ['lib/site-packages'], **{options}}}"
    server = serve(f"{MODEL}\n    serve({sleepy})")
    pid, imported_by = server.post("/a", json="which").json()
    assert pid == imported_by
    server.wait_for_line("template: ready: workers are forked with .*heavy")
    wait_until(lambda: len(server.workers()) == 1)
    pid, imported_by = server.post("/a", json="which").json()
    assert pid != imported_by
    server.wait_for_line(FORKED % "/a")


def test_a_module_that_workers_find_elsewhere_is_not_preloaded(serve, heavy, tmp_path):
    heavy(f"{HEAVY}\n    import time; time.sleep(0.5)", directory="other/site-packages")
    heavy(f"{HEAVY}\n    import time; time.sleep(0.5)", directory="lib/site-packages")
    (tmp_path / "lib" / "heavy.py").unlink()
    options = {"min_workers": 0, "max_workers": 1, "keep_alive": 1}
    sleepy = f"{{'path': '/a', 'pythonpath': ['lib/site-packages'], **{options}}}"
    finds = MODEL.replace("import heavy", "sys.path.insert(0, 'other/site-packages'); import heavy")
    server = serve(f"{finds}\n    serve({sleepy})")
    server.post("/a", json="which")
    server.wait_for_line("template: `heavy` is not preloaded: after its import it is another one")
    # On a slow machine the template is there for other modules.
    server.wait_for_line("/a: asleep after 1s without a request")
    pid, imported_by = server.post("/a", json="which").json()
    assert pid == imported_by


def test_an_endpoint_of_a_fixed_size_has_no_template_that_it_does_not_name(serve, heavy, tmp_path):
    heavy(f"{HEAVY}\n    import time; time.sleep(0.5)", directory="lib/site-packages")
    (tmp_path / "lib" / "heavy.py").unlink()
    server = serve(f"{MODEL}\n    serve({{'path': '/a', 'pythonpath': ['lib/site-packages']}})")
    assert server.workers() == [server.post("/a", json="which").json()[0]]


IMPORTS = """
    import os, time

    DATA = bytearray(b"x") * (60 << 20)
    while not os.path.exists("gate"):
        time.sleep(0.01)
"""


def test_the_memory_of_a_template_is_in_the_budget(serve, heavy, runtime, litplex, tmp_path):
    heavy(IMPORTS, "large")
    options = {"min_workers": 0, "max_workers": 1}
    server = serve(f"{MODEL}\n    serve({preloading('heavy', 'large', **options)})", env=runtime)

    def bytes_of(name):
        text = server.client.get("/metrics").text
        return float(re.findall(rf'{name}{{place="host"}} (\S+)', text)[0])

    with ThreadPoolExecutor() as pool:
        look = pool.submit(server.post, "/a", json="look")
        try:
            # While it imports, too: its process is the only one, since the request waits for it.
            wait_until(lambda: bytes_of("litplex_template_memory_bytes") > 60 << 20)
            assert not look.done()
        finally:
            (tmp_path / "gate").touch()
        assert look.result().status_code == 200
    assert litplex("scale", "/a", "0")[0] == 0
    # Its worker is gone.
    wait_until(lambda: re.search(r"/a .* asleep \(template\) ", litplex("ps")[1]))
    wait_until(lambda: bytes_of("litplex_memory_held_bytes") < 120 << 20)
    assert bytes_of("litplex_memory_held_bytes") >= bytes_of("litplex_template_memory_bytes")
    _, out, _ = litplex("ps")
    assert re.search(r"memory [\d.]+ MB of .* \(templates [\d.]+ MB\)", out), out


def test_a_model_that_fits_is_not_refused_because_of_its_template(serve, heavy, runtime, litplex):
    heavy("DATA = bytearray(b'x') * (100 << 20)", "large")
    options = {"min_workers": 0, "max_workers": 1}
    server = serve(
        f"{MODEL}\n    serve({preloading('heavy', 'large', **options)}, memory_budget='480MB')",
        env=runtime,
    )

    def bytes_of(name, label):
        text = server.client.get("/metrics").text
        return float(re.findall(rf"{name}{{{label}}} (\S+)", text)[0])

    server.post("/a", json="grow")
    needs = "litplex_worker_predicted_memory_bytes"
    wait_until(lambda: bytes_of(needs, 'endpoint="/a"') > 400e6)
    assert litplex("scale", "/a", "0")[0] == 0
    wait_until(lambda: bytes_of("litplex_template_memory_bytes", 'place="host"') > 100 << 20)
    assert server.post("/a", json="look").status_code == 200
