"""A server beside the program that started it: in a notebook, in a test."""

import os
import signal
import socket
import sys
import threading

import httpx
import litplex as ls
import pytest
from conftest import LITPLEX, PATIENCE, Server, descendants, is_alive, wait_until


class Double(ls.LitAPI):
    def predict(self, x):
        return 2 * x


class Broken(ls.LitAPI):
    def setup(self, device):
        raise RuntimeError("the weights are gone")

    def predict(self, x):
        return x


@pytest.fixture(autouse=True)
def binary(monkeypatch):
    monkeypatch.setenv("LITPLEX_BIN", str(LITPLEX))


def test_a_server_runs_beside_a_test_until_it_is_stopped(capsys):
    servers = [ls.LitServer(Double(), path="/double"), ls.LitServer(Double(), path="/again")]
    with ls.start(*servers, port=0) as server:
        for path in ("/double", "/again"):
            assert httpx.post(f"{server.url}{path}", json=21).json() == 42
        assert "running" in repr(server)
        with pytest.raises(TimeoutError):
            server.wait(0.01)
        # A second server, on another port.
        with ls.start(ls.LitServer(Double()), port=0) as other:
            assert httpx.post(f"{other.url}/predict", json=1).json() == 2
            assert other.url != server.url
    assert server.wait() == server.stop() == 0
    assert "ended" in repr(server)
    assert "ready: all endpoints serve" in capsys.readouterr().err
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_start_works_on_a_thread_and_leaves_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    answers = []

    def use():
        with ls.start(ls.LitServer(Double()), port=0) as server:
            answers.append(httpx.post(f"{server.url}/predict", json=4).json())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(PATIENCE)
    assert answers == [8]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_reason_of_a_failed_start_is_raised():
    with pytest.raises(RuntimeError, match=r"before it was ready: (.|\n)*the weights are gone"):
        ls.start(ls.LitServer(Broken(), path="/broken"), port=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{port}"):
            ls.start(ls.LitServer(Double()), port=port)
    with pytest.raises(ValueError, match="at least one"):
        ls.start()


def test_models_that_load_too_long_raise_a_timeout():
    with pytest.raises(TimeoutError, match="not ready within"):
        ls.start(ls.LitServer(Double()), port=0, ready_timeout=0)


def test_models_that_need_the_program_to_run_again_are_refused():
    class Local(ls.LitAPI):
        def predict(self, x):
            return x

    class Guarded(Double):
        def authorize(self, request):
            return True

    with pytest.raises(ValueError, match="`/predict`: Local cannot be sent to its workers"):
        ls.start(ls.LitServer(Local()), port=0)
    if sys.version_info >= (3, 10):
        with pytest.raises(ValueError, match="runs the program again"):
            ls.start(ls.LitServer(Double(), middlewares=[(object, {})]), port=0)


SCRIPT = """
import urllib.request

class Own(ls.LitAPI):
    def predict(self, x):
        return [x, "own"]

def ask(url):
    request = urllib.request.Request(url + "/predict", b"1", {"Content-Type": "application/json"})
    return urllib.request.urlopen(request).read().decode()

if __name__ == "__main__":
    server = ls.start(ls.LitServer(Own()), port=0)
    print("answer:", ask(server.url), flush=True)
"""


def test_a_server_ends_with_its_script(run, script):
    program = run([sys.executable, script(SCRIPT)])
    assert program.wait() == 0
    assert 'answer: [1,"own"]' in program.output
    assert "stopped" in program.output


def test_a_second_model_of_the_script_is_refused_and_not_taken_for_the_first(run, script):
    text = SCRIPT + "    ls.start(ls.LitServer(Own(), path='/b'), port=0)\n"
    program = run([sys.executable, script(text)])
    assert program.wait() == 1
    assert "`/b`: Own cannot be sent to its workers" in program.output


NOTEBOOK = """
import os
import litplex as ls
with open("cell_model.py", "w") as file:
    file.write('''
import litplex as ls
class Cell(ls.LitAPI):
    def predict(self, x):
        return x + 1
''')
server = ls.start(ls.LitServer("cell_model.py:Cell", path="/cell"), port=0)
print("at", server.url, flush=True)
try:
    class Inline(ls.LitAPI):
        def predict(self, x):
            return x
    ls.start(ls.LitServer(Inline()), port=0)
except ValueError as error:
    print("refused:", error, flush=True)
import signal; signal.pause()
"""


def test_start_works_without_a_file_and_ends_when_the_process_is_killed(run):
    """Runs code as the kernel of a notebook does: its cells are in no file."""
    program = run([sys.executable, "-c", NOTEBOOK])
    url = program.wait_for_line(r"at (http://\S+)")[1]
    program.wait_for_line("refused: .*Inline cannot be sent .* put it into a module and import it")
    assert httpx.post(f"{url}/cell", json=1).json() == 2
    pids = descendants(program.process.pid)
    assert pids
    program.process.kill()
    wait_until(lambda: not any(map(is_alive, pids)))


def test_systemd_gets_the_notices_of_a_service(run, script, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(os.fspath(tmp_path / "n"))
        notices.settimeout(PATIENCE)
        text = """
            class API(ls.LitAPI):
                def predict(self, x):
                    import os
                    return os.environ.get("NOTIFY_SOCKET")
            if __name__ == "__main__":
                ls.LitServer(API()).run(port=0)
        """
        env = {"NOTIFY_SOCKET": os.fspath(tmp_path / "n")}
        server = run([sys.executable, script(text)], kind=Server, env=env).wait_until_ready()
        assert server.url in notices.recv(4096).decode()
        assert "READY=1" in notices.recv(4096).decode().splitlines()
        assert server.post("/predict", json=0).json() is None, "workers do not speak for it"
        assert server.stop() == 0
        assert notices.recv(4096).decode() == "STOPPING=1"
