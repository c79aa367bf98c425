"""A server is replaced by a new process of its program, while it serves."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import hpack
import httpx
import pytest
from certificates import Authority
from conftest import LITPLEX, PATIENCE, Server, is_alive, wait_until
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

SERVER = """
    import os, time

    VERSION = {version}

    class Model(ls.LitAPI):
        def setup(self, device):
            {setup}
        def predict(self, x):
            time.sleep(0.002)
            return [VERSION, os.getppid()]

    class Stream(ls.LitAPI):
        async def predict(self, n):
            import asyncio
            for i in range(n):
                await asyncio.sleep(0.05)
                yield [os.getppid(), i]

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Model(), path="/model"),
            ls.LitServer(Stream(stream=True, enable_async=True), path="/stream"),
            port=0,
            {options}
        )
"""


@pytest.fixture
def write(script, tmp_path):
    """Returns a function that writes the program."""

    def write(version, setup="pass", options=""):
        return script(SERVER.format(version=version, setup=setup, options=options))

    return write


@pytest.fixture(params=["python server.py", "litplex serve server.py"])
def start(request, run, write, runtime):
    """Returns a function that starts the program in one of the ways that there are."""

    def start(version=1, setup="pass", options="", litplex=LITPLEX):
        file = write(version, setup, options)
        commands = {
            "python server.py": [sys.executable, file],
            "litplex serve server.py": [litplex, "serve", file, "--python", sys.executable],
        }
        env = {**runtime, "LITPLEX_BIN": str(litplex)}
        return run(commands[request.param], kind=Server, env=env).wait_until_ready()

    return start


def upgrade(litplex, *args):
    status, out, err = litplex("upgrade", "--json", *args)
    assert status == 0, err
    return json.loads(out)


def serving(litplex):
    """Returns the process id of the server that `litplex ps` shows."""
    status, out, err = litplex("ps", "--json")
    assert status == 0, err
    return json.loads(out)["pid"]


class Load:
    """Clients of all kinds, and the number of responses of each by the process that served them."""

    def __init__(self, url, authority=None):
        self.url, self.authority, self.errors = url, authority, []
        self.served: dict[str, set[int]] = {kind: set() for kind in ("kept", "new", "http2")}
        self.verify = verify = authority.trust() if authority else True
        self.stopped = threading.Event()
        kinds = {
            "kept": lambda: httpx.Client(timeout=PATIENCE, verify=verify),
            "new": None,
        }
        self.threads = [
            threading.Thread(target=self.run, args=(kind, make))
            for kind, make in kinds.items()
            for _ in range(2)
        ]
        self.threads.append(threading.Thread(target=self.run_http2))

    def run_http2(self):
        connection = None
        try:
            while not self.stopped.is_set():
                if connection is None or connection.is_told_to_leave:
                    connection = Http2(self.url, self.authority)
                self.served["http2"].add(connection.ask()[1])
        except Exception as error:  # noqa: BLE001
            self.errors.append(("http2", repr(error)))
        finally:
            if connection is not None:
                connection.close()

    def run(self, kind, make):
        client = make() if make else None
        try:
            while not self.stopped.is_set():
                new = {"verify": self.verify, "timeout": PATIENCE}
                post = client.post if client else functools.partial(httpx.post, **new)
                response = post(f"{self.url}/model", json=1)
                assert response.status_code == 200, response.text
                self.served[kind].add(response.json()[1])
        except Exception as error:  # noqa: BLE001
            self.errors.append((kind, repr(error)))
        finally:
            if client is not None:
                client.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def reach(self, pid):
        """Waits until clients of every kind were served by a process."""
        reached = lambda: all(pid in pids for pids in self.served.values())  # noqa: E731
        wait_until(lambda: reached() or self.errors, lambda: f"{pid}: {self.served}")


class Http2:
    """A connection of HTTP/2. Python's `h2`, which httpx has, takes every GOAWAY for an error."""

    def __init__(self, url, authority=None):
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), PATIENCE)
        if authority:
            context = authority.trust()
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.bytes = self.socket.makefile("rb")
        self.encoder, self.stream, self.is_told_to_leave = hpack.Encoder(), -1, False
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())

    def ask(self):
        """Returns the response to one request, over the next stream."""
        self.stream += 2
        names = {":method": "POST", ":path": "/model", ":scheme": "http", ":authority": "localhost"}
        fields = [*names.items(), ("content-type", "application/json")]
        head = HeadersFrame(self.stream, self.encoder.encode(fields), flags=["END_HEADERS"])
        body = DataFrame(self.stream, b"1", flags=["END_STREAM"])
        self.socket.sendall(head.serialize() + body.serialize())
        received = b""
        while True:
            frame, length = Frame.parse_frame_header(self.bytes.read(9))
            frame.parse_body(memoryview(self.bytes.read(length)))
            if isinstance(frame, GoAwayFrame):
                assert frame.error_code == 0 and frame.last_stream_id >= self.stream
                self.is_told_to_leave = True
            elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                answer = PingFrame(0, frame.opaque_data, flags=["ACK"])
                self.socket.sendall(answer.serialize())
            elif isinstance(frame, DataFrame):
                received += frame.data
                self.socket.sendall(WindowUpdateFrame(0, length or 1).serialize())
            if "END_STREAM" in frame.flags:
                break
        if self.is_told_to_leave:
            self.close()
        return json.loads(received)

    def close(self):
        self.bytes.close()
        self.socket.close()


class Raw:
    """A connection over which requests are sent byte by byte."""

    def __init__(self, url):
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), PATIENCE)

    def ask(self, body=b"1"):
        head = f"POST /model HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        self.socket.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        received = b""
        while not received.endswith(b"]"):
            piece = self.socket.recv(65536)
            assert piece, received
            received += piece
        return received.decode().lower()


def test_no_request_is_lost_and_no_stream_ends(start, litplex):
    server = start(1)
    first = serving(litplex)
    idle, unused = Raw(server.url), Raw(server.url)
    assert "connection: close" not in idle.ask()
    lines: list[list[int]] = []

    def stream():
        with server.client.stream("POST", "/stream", json=60) as response:
            lines.extend(json.loads(line) for line in response.iter_lines())

    reader = threading.Thread(target=stream)
    reader.start()
    wait_until(lambda: metric(server, "litplex_inflight_requests", "/stream") == 1)
    with Load(server.url) as load:
        load.reach(first)
        # The sockets stay the same, whatever starts: three upgrades, of which one is by signal.
        second = upgrade(litplex)
        assert second["before"] == first
        assert serving(litplex) == second["pid"]
        assert "connection: close" in idle.ask(), "the next response ends the connection"
        assert idle.socket.recv(1) == b""
        assert f",{first}]" in unused.ask(), "a connection stays where it was accepted"
        load.reach(second["pid"])
        third = upgrade(litplex)["pid"]
        load.reach(third)
        server.signal(signal.SIGUSR2)
        wait_until(lambda: serving(litplex) not in (first, second["pid"], third))
        load.reach(serving(litplex))
    assert load.errors == []
    reader.join()
    assert lines == [[first, i] for i in range(60)], "the stream ends on the server that began it"
    for each in (idle, unused):
        each.socket.close()
    server.wait_for_line(f"the requests of process {first} are finished")
    # The first process keeps the last one; those between have ended.
    wait_until(lambda: not any(map(is_alive, (second["pid"], third))))
    last = serving(litplex)
    assert is_alive(first) and is_alive(last)
    assert server.stop() == 0
    assert not is_alive(last)


def metric(server, name, endpoint):
    text = server.client.get("/metrics").text
    found = re.search(rf'{name}{{endpoint="{endpoint}"}} (\d+)', text)
    return int(found[1]) if found else None


def test_the_new_server_has_the_present_program(start, write, litplex):
    server = start(1)
    port = urlsplit(server.url).port
    write(2)
    upgrade(litplex)
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        assert client.post("/model", json=1).json()[0] == 2
    assert serving_port(litplex) == port
    status, _, err = litplex("stop")
    assert status == 0, err
    assert server.wait() == 0, "the first process ends with the server that it keeps"


def test_an_upgrade_over_tls(start, write, litplex, tmp_path):
    ours, others = (Authority(tmp_path, name) for name in ("ours", "others"))
    pairs = [authority.issue("server") for authority in (ours, others)]
    options = [f"tls_cert={str(cert)!r}, tls_key={str(key)!r}," for cert, key in pairs]
    server = start(1, options=options[0])
    assert server.url.startswith("https://")
    first, trust = serving(litplex), ours.trust()
    items: list[list[int]] = []

    def stream():
        with client.stream("POST", "/stream", json=40) as response:
            items.extend(json.loads(line) for line in response.iter_lines())

    with httpx.Client(base_url=server.url, verify=trust, timeout=PATIENCE) as client:
        reader = threading.Thread(target=stream)
        reader.start()
        in_flight = 'litplex_inflight_requests{endpoint="/stream"} 1'
        wait_until(lambda: in_flight in client.get("/metrics").text)
        with Load(server.url, ours) as load:
            load.reach(first)
            second = upgrade(litplex)["pid"]
            load.reach(second)
        reader.join()
    assert load.errors == []
    assert items == [[first, i] for i in range(40)]
    # The next server has the certificate of the present program.
    write(2, options=options[1])
    third = upgrade(litplex)["pid"]
    with httpx.Client(base_url=server.url, verify=others.trust(), timeout=PATIENCE) as client:
        assert client.post("/model", json=1).json() == [2, third]
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{server.url}/model", json=1, verify=trust)
    # One that cannot read its certificate leaves the old one.
    pairs[1].key.write_text("no key")
    write(3, options=options[1])
    status, _, err = litplex("upgrade")
    assert (status, f"process {third} goes on" in err) == (1, True), err
    assert "tls_key" in err, err
    assert serving(litplex) == third
    assert server.stop() == 0


def serving_port(litplex):
    status, out, err = litplex("ps", "--json")
    assert status == 0, err
    return json.loads(out)["port"]


def test_a_server_that_does_not_become_ready_leaves_the_old_one(start, write, litplex, tmp_path):
    command = tmp_path / "bin" / "litplex"
    command.parent.mkdir()
    shutil.copy(LITPLEX.resolve(), command)
    server = start(1, litplex=command)
    pid = serving(litplex)

    def fails(*args):
        status, out, err = litplex("upgrade", *args)
        assert (status, out) == (1, ""), err
        assert f"process {pid} goes on" in err
        assert server.post("/model", json=1).json() == [1, pid]
        assert serving(litplex) == pid
        return err

    write("1 +")
    assert "exited before describing" in fails()
    server.wait_for_line("SyntaxError")
    write(2, setup="raise RuntimeError('no weights')")
    assert "no weights" in fails()
    server.wait_for_line("upgrade failed; this server goes on: .*/model")
    write(2, options="no_such_option=1,")
    fails()
    server.wait_for_line("no_such_option")
    write(2, setup="time.sleep(600)")
    assert "it was not ready after 1 s" in fails("--limit", "1")
    write(2, setup="os.kill(os.getppid(), 9)")
    assert "it ended with signal: 9" in fails()
    command.rename(tmp_path / "other")
    assert f"`{command}` cannot be started" in fails()
    # Whatever took the place of the file counts.
    command.write_text("#!/bin/sh\necho not litplex >&2\nexit 7\n")
    command.chmod(0o755)
    assert "it ended with exit status: 7" in fails()
    # A script that starts the server is one way to install it.
    command.write_text(f'#!/bin/sh\n"{tmp_path}/other" "$@"\nexit $?\n')
    write(2)
    upgrade(litplex)
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        assert client.post("/model", json=1).json()[0] == 2
    assert server.stop() == 0


def test_an_upgrade_in_progress(start, write, litplex):
    server = start(1)
    pid = serving(litplex)
    write(2, setup="time.sleep(600)")
    results = []
    thread = threading.Thread(target=lambda: results.append(litplex("upgrade")))
    thread.start()
    server.wait_for_line(r"upgrade: process \d+ starts")
    status, _, err = litplex("upgrade")
    assert status == 1 and "is being upgraded; wait for its end" in err
    # It does not serve, so that commands are for the old one.
    assert serving(litplex) == pid
    status, out, _ = litplex("events")
    assert re.search(r"upgrade: process \d+ is starting", out)
    starting = int(server.wait_for_line(r"upgrade: process (\d+) starts")[1])
    assert server.stop() == 0
    thread.join()
    assert results[0][0] == 1
    wait_until(lambda: not is_alive(starting))


def test_signals_reach_the_server_that_serves(start, litplex):
    server = start(1)
    first, second = serving(litplex), upgrade(litplex)["pid"]
    answers: list[list[int]] = []
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:

        def stream():
            with client.stream("POST", "/stream", json=20) as response:
                answers.extend(json.loads(line) for line in response.iter_lines())

        reader = threading.Thread(target=stream)
        reader.start()
        wait_until(lambda: '"/stream"} 1' in httpx.get(f"{server.url}/metrics").text)
        server.signal(signal.SIGTERM)
        reader.join()
    assert answers == [[second, i] for i in range(20)]
    assert server.wait() == 0
    assert not is_alive(first) and not is_alive(second)


def test_the_end_of_one_process_is_that_of_the_other(start, litplex):
    server = start(1)
    second = upgrade(litplex)["pid"]
    os.kill(second, signal.SIGKILL)
    assert server.wait() == 128 + signal.SIGKILL
    server.wait_for_line(rf"process {second}\) was killed by signal 9")

    server = start(1)
    first, second = serving(litplex), upgrade(litplex)["pid"]
    os.kill(first, signal.SIGKILL)
    server.wait()
    wait_until(lambda: not is_alive(second))


@pytest.fixture
def activated(run, runtime, tmp_path):
    """Starts a command with these sockets, as a socket unit of systemd does."""

    def start(command, sockets, names):
        starter = tmp_path / "start.py"
        starter.write_text(
            "import fcntl, os, sys\n"
            "names, *numbers = sys.argv[1].split()\n"
            "numbers = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 20) for number in numbers]\n"
            "for at, number in enumerate(numbers):\n"
            "    os.dup2(number, 3 + at)\n"
            "os.environ.update(LISTEN_FDS=str(len(numbers)), LISTEN_FDNAMES=names)\n"
            "os.environ['LISTEN_PID'] = str(os.getpid())\n"
            "os.execv(sys.argv[2], sys.argv[2:])\n"
        )
        numbers = [each.fileno() for each in sockets]
        popen = subprocess.Popen

        def passing(*args, **options):
            return popen(*args, **options, pass_fds=numbers)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess, "Popen", passing)
            given = " ".join([names, *map(str, numbers)])
            env = {**runtime, "ANN": "a"}
            return run([sys.executable, starter, given, *command], kind=Server, env=env)

    return start


@pytest.mark.parametrize("way", ["python server.py", "litplex serve server.py"])
def test_systemd_passes_sockets(activated, write, tmp_path, way):
    """The sockets listen before the server starts, at other addresses than its options say."""
    write(1, options='admin_port=1, admin_keys={"ann": "env:ANN"},')
    python = sys.executable
    command = {
        "python server.py": [python, tmp_path / "server.py"],
        "litplex serve server.py": [LITPLEX, "serve", tmp_path / "server.py", "--python", python],
    }[way]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        admin, http = (each.getsockname()[1] for each in sockets)
        # A client that comes before the server waits in the backlog.
        early = Raw(f"http://127.0.0.1:{http}")
        server = activated(command, sockets, "admin:http").wait_until_ready()
    assert server.url == f"http://127.0.0.1:{http}"
    assert "200 ok" in early.ask()
    early.socket.close()
    key = {"x-api-key": "a"}

    def admin_call(method, path, **body):
        url = f"http://127.0.0.1:{admin}/v1/{path}"
        return httpx.request(method, url, headers=key, timeout=PATIENCE, **body)

    pid = admin_call("GET", "server").json()["pid"]
    assert admin_call("POST", "upgrade", json={"limit": 0}).status_code == 400

    def upgraded(before):
        told = admin_call("POST", "upgrade", json={"limit": 30}).json()
        return told.get("before") == before and told["pid"]

    def is_served_by(pid):
        return httpx.post(f"{server.url}/model", json=1).json() == [1, pid]

    # Each process keeps them, also the third one. The one before accepts clients a moment longer.
    for _ in range(2):
        pid = wait_until(lambda pid=pid: upgraded(before=pid))
        wait_until(lambda pid=pid: is_served_by(pid))
    assert server.stop() == 0
    # The sockets were those of the server alone: none of its workers had them.
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{server.url}/model", json=1)


def test_a_socket_of_another_kind_is_an_error(activated, write):
    write(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        command = [LITPLEX, "serve", "server.py", "--python", sys.executable]
        server = activated(command, [wrong], "http")
    assert server.wait() == 2
    server.wait_for_line("expected a TCP socket that listens")


def test_a_program_that_cannot_be_started_again(litplex, runtime, script, run):
    script(
        """
        class Model(ls.LitAPI):
            def predict(self, x):
                return x
        """,
        name="model.py",
    )
    program = script(
        """
        import model
        with ls.start(ls.LitServer(model.Model(), path="/model"), port=0) as server:
            server.wait()
        """
    )
    server = run([sys.executable, program], kind=Server, env=runtime).wait_until_ready()
    status, _, err = litplex("upgrade")
    assert status == 1
    assert "this program cannot be started again; restart it" in err
    assert server.client.post("/model", json=1).json() == 1
    status, _, _ = litplex("stop")
    assert server.wait() == 0
