"""Signals to a server, for every way of starting it."""

import os
import signal
import sys
import threading
import time

import pytest
from conftest import LITPLEX, Server, parent_of, wait_until

SLEEPER = """
    import os, time

    class Sleeps(ls.LitAPI):
        def setup(self, device):
            if os.path.exists("slow"):
                open("began", "w").close()
                time.sleep(600)
        def predict(self, seconds):
            time.sleep(seconds)
            return "slept"

    if __name__ == "__main__":
        ls.run_servers(ls.LitServer(Sleeps(), path="/sleep"), port=0)
"""


@pytest.fixture(params=["python server.py", "litplex serve server.py", "litplex serve x.toml"])
def start(request, run, script, tmp_path):
    """Starts the program in one of the ways that there are."""
    file = script(SLEEPER)
    (tmp_path / "x.toml").write_text(
        'port = 0\n[[endpoint]]\npath = "/sleep"\napi = "server.py:Sleeps"\n'
    )
    commands = {
        "python server.py": [sys.executable, file],
        "litplex serve server.py": [LITPLEX, "serve", file, "--python", sys.executable],
        "litplex serve x.toml": [LITPLEX, "serve", "x.toml"],
    }
    return lambda *before: run([*before, *commands[request.param]], kind=Server)


def in_flight(server, seconds):
    """Sends a request, and returns the future of its response, once it is at the worker."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(server.post("/sleep", json=seconds)))
    thread.start()
    wait_until(lambda: 'litplex_inflight_requests{endpoint="/sleep"} 1' in metrics(server))

    def answer():
        thread.join()
        return answers[0]

    return answer


def metrics(server):
    return server.client.get("/metrics").text


def test_every_signal_to_stop_drains(start):
    for name in ("SIGQUIT", "SIGINT", "SIGTERM"):
        server = start().wait_until_ready()
        answer = in_flight(server, 1)
        server.signal(getattr(signal, name))
        assert answer().json() == "slept", name
        assert server.wait() == 0, name
        server.wait_for_line(f"received {name}")
        server.wait_for_line("stopping; requests in flight")


def test_a_terminal_that_closes_stops_a_server_and_an_operator_reloads_it(start):
    """As a shell's job: in the session of a terminal, which then closes."""
    terminal, end = os.openpty()
    setup = (
        "import fcntl, os, sys, termios; os.setsid(); to = os.open(sys.argv[1], os.O_RDWR); "
        "fcntl.ioctl(to, termios.TIOCSCTTY, 0); os.close(to); "
        "os.execvp(sys.argv[2], sys.argv[2:])"
    )
    server = start(sys.executable, "-c", setup, os.ttyname(end))
    os.close(end)
    server.wait_until_ready()
    server.signal(signal.SIGHUP)
    server.wait_for_line("received SIGHUP; reading the configuration again")
    server.wait_for_line("the configuration is reloaded")
    assert server.post("/sleep", json=0).json() == "slept"
    answer = in_flight(server, 1)
    os.close(terminal)
    assert answer().json() == "slept"
    assert server.wait() == 0
    server.wait_for_line("stopping; requests in flight")


def test_a_repeated_signal_is_one_also_where_the_server_has_stopped_already(serve):
    server = serve(
        """
        import time

        class Idle(ls.LitAPI):
            def predict(self, x):
                return x

        if __name__ == "__main__":
            ls.LitServer(Idle()).run(port=0)
            print("the program goes on", flush=True)
            time.sleep(30)
        """
    )
    server.signal(signal.SIGTERM)
    server.wait_for_line("the program goes on")
    server.signal(signal.SIGINT)
    time.sleep(0.1)
    assert server.process.poll() is None
    # What comes later is a signal to the program itself.
    time.sleep(0.6)
    server.signal(signal.SIGTERM)
    assert server.wait() == -signal.SIGTERM


def test_signals_that_nohup_ignores_stay_ignored(start):
    server = start("nohup").wait_until_ready()
    for pid in {server.process.pid, parent_of(server.workers()[0])}:
        os.kill(pid, signal.SIGHUP)
    time.sleep(0.5)
    assert server.post("/sleep", json=0).json() == "slept"
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "SIGHUP" not in server.output


def test_a_signal_while_models_load_does_not_wait_for_them(start, tmp_path):
    (tmp_path / "slow").touch()
    server = start().wait_until_listening()
    wait_until((tmp_path / "began").exists)
    begin = time.monotonic()
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    # The grace for requests is 30 s, and there is none.
    assert time.monotonic() - begin < 15
    assert "Traceback" not in server.output


def test_a_killed_server_is_reported_with_its_signal(serve):
    server = serve(SLEEPER)
    os.kill(parent_of(server.workers()[0]), signal.SIGKILL)
    assert server.wait() == 128 + signal.SIGKILL
    server.wait_for_line("the litplex server was killed by signal 9")


def test_a_signal_before_the_server_takes_signals_stops_it_as_asked(run, tmp_path, script):
    """The binary is replaced by a program that has not come to that yet."""
    slow = tmp_path / "slow-binary"
    slow.write_text("#!/bin/sh\necho began\nexec sleep 60\n")
    slow.chmod(0o755)
    program = run([sys.executable, script(SLEEPER)], env={"LITPLEX_BIN": str(slow)})
    program.wait_for_line("began")
    assert program.stop() == 0
