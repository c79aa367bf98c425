"""The end of a server: it answers requests in flight, refuses new ones, and leaves no process."""

import asyncio
import json
import os
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import PATIENCE, descendants, is_alive, parent_of, wait_until
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame

WORK = """
    import asyncio, time

    class Work(ls.LitAPI):
        def predict(self, seconds):
            time.sleep(seconds)
            return "done"
        def teardown(self):
            print("torn down")

    class Ticks(ls.LitAPI):
        async def predict(self, count):
            for n in range(count):
                yield n
                await asyncio.sleep(0.1)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Work(), path="/work", workers_per_device=2),
            ls.LitServer(Ticks(stream=True), path="/ticks"),
            port=0,
            grace=GRACE,
        )
"""


def work(grace=30):
    return WORK.replace("GRACE", str(grace))


def ask_to_stop(server):
    server.signal(signal.SIGTERM)
    server.wait_for_line("stopping; requests in flight")


def stops_soon(server):
    """Returns whether the server stops long before its grace is over."""
    begin = time.monotonic()
    return server.stop() == 0 and time.monotonic() - begin < 15


class Connection:
    """A client whose test decides what it sends and receives, and when."""

    def __init__(self, server):
        url = urlsplit(server.url)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_head(self, path, body):
        head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        self.send(f"{head}Content-Length: {len(body)}\r\n\r\n")

    def send(self, text):
        self.socket.sendall(text.encode())

    def read_to_end(self):
        received = b""
        while piece := self.socket.recv(65536):
            received += piece
        return received.decode()


def test_all_requests_in_flight_are_answered(serve):
    server = serve(work())

    async def stop_in_the_middle():
        requests, streams = 450, 50
        unsent, all_sent = requests + streams, asyncio.Event()

        async def trace(event, _):
            nonlocal unsent
            if event == "http11.send_request_body.complete":
                unsent -= 1
                if unsent == 0:
                    all_sent.set()

        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=server.url, timeout=PATIENCE, limits=limits
        ) as client:

            async def post(path, body):
                return await client.post(path, json=body, extensions={"trace": trace})

            answered = asyncio.gather(*(post("/work", 0.005) for _ in range(requests)))
            streamed = asyncio.gather(*(post("/ticks", 20) for _ in range(streams)))
            await all_sent.wait()
            # Connections are accepted in their order, so that all of those are by now.
            for _ in range(3):
                await client.get("/health", headers={"Connection": "close"})
            await asyncio.to_thread(ask_to_stop, server)
            return await answered, await streamed

    answered, streamed = asyncio.run(stop_in_the_middle())
    assert {(a.status_code, a.text) for a in answered} == {(200, '"done"')}
    assert [[json.loads(line) for line in a.text.splitlines()] for a in streamed] == [
        [*range(20)]
    ] * 50
    assert server.wait() == 0
    assert server.output.count("| torn down") == 2


@pytest.mark.parametrize("path", ["/work", "/ticks", "/health", "/nothing"])
def test_new_requests_during_a_drain_are_refused_with_a_reason(serve, path):
    server = serve(work())
    with server.client.stream("POST", "/ticks", json=30) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "0"
        ask_to_stop(server)
        refused = httpx.post(f"{server.url}{path}", json=1)
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert int(refused.headers["retry-after"]) >= 1
        assert "stopping" in refused.json()["detail"]
        assert [*lines] == [str(n) for n in range(1, 30)]
    assert server.wait() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")


def test_a_response_announces_the_end_of_its_connection(serve):
    server = serve(work())
    with Connection(server) as connection:
        connection.send_head("/work", "1.5")
        connection.send("1.5")
        time.sleep(0.3)
        ask_to_stop(server)
        head, _, body = connection.read_to_end().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")
    assert "connection: close" in head.lower().splitlines()
    assert body == '"done"'
    assert server.wait() == 0


def test_a_body_that_is_on_its_way_is_taken(serve):
    server = serve(work())
    with Connection(server) as connection:
        connection.send_head("/work", "0.001")
        connection.send("0.0")
        time.sleep(0.3)
        ask_to_stop(server)
        time.sleep(0.3)
        connection.send("01")
        assert connection.read_to_end().endswith('"done"')
    assert server.wait() == 0


def test_connections_that_ask_for_nothing_hold_nothing_up(serve):
    server = serve(work())
    assert server.post("/work", json=0).json() == "done"
    with Connection(server):
        time.sleep(0.3)
        assert stops_soon(server)


def test_half_a_request_holds_nothing_up(serve):
    server = serve(work())
    with Connection(server) as connection:
        connection.send("POST /work HTTP/1.1\r\nHost: te")
        time.sleep(0.3)
        assert stops_soon(server)


def test_an_http2_connection_that_asks_for_nothing_holds_nothing_up(serve):
    server = serve(work())
    with httpx.Client(base_url=server.url, http1=False, http2=True) as client:
        assert client.post("/work", json=0).json() == "done"
        # It reads nothing before it is used again.
        assert stops_soon(server)


class Http2(Connection):
    """Requests of one HTTP/2 connection, and all that comes until the server closes it."""

    def __init__(self, server):
        super().__init__(server)
        self._encoder = Encoder()
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())

    def ask(self, stream, path, body):
        names = (":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", path)
        head = HeadersFrame(stream, self._encoder.encode([*names]), flags=["END_HEADERS"])
        data = DataFrame(stream, body.encode(), flags=["END_STREAM"])
        self.socket.sendall(head.serialize() + data.serialize())

    def read_answers(self):
        """Returns the bodies of those streams that were complete."""
        bodies: dict[int, bytes] = {}
        complete = {}
        while frame := self._read_frame():
            if isinstance(frame, DataFrame):
                bodies[frame.stream_id] = bodies.get(frame.stream_id, b"") + frame.data
            if "END_STREAM" in frame.flags:
                complete[frame.stream_id] = bodies[frame.stream_id].decode()
            if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                pong = PingFrame(0, frame.opaque_data, flags=["ACK"])
                self.socket.sendall(pong.serialize())
        return complete

    def _read_frame(self):
        head = self._read(9)
        if not head:
            return None
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(self._read(length)))
        return frame

    def _read(self, length):
        received = b""
        while len(received) < length:
            piece = self.socket.recv(length - len(received))
            if not piece:
                break
            received += piece
        return received


def test_requests_of_an_http2_connection_are_answered(serve):
    server = serve(work())
    with Http2(server) as connection:
        for stream in (1, 3, 5):
            connection.ask(stream, "/ticks", "10")
        for stream in (7, 9):
            connection.ask(stream, "/work", "0.7")
        time.sleep(0.5)
        ask_to_stop(server)
        answers = connection.read_answers()
    ticks = "".join(f"{n}\n" for n in range(10))
    assert answers == {1: ticks, 3: ticks, 5: ticks, 7: '"done"', 9: '"done"'}
    assert server.wait() == 0


def test_requests_longer_than_the_grace_are_broken_off(serve):
    server = serve(work(grace=0.5))
    workers = server.workers()
    with (
        Connection(server) as connection,
        server.client.stream("POST", "/ticks", json=10**6) as stream,
    ):
        connection.send_head("/work", "600")
        connection.send("600")
        pieces = stream.iter_raw()
        next(pieces)
        time.sleep(0.3)
        ask_to_stop(server)
        with pytest.raises(httpx.RemoteProtocolError):
            sum(map(len, pieces))
        assert "200 OK" not in connection.read_to_end()
    assert server.wait() == 0
    server.wait_for_line("did not finish in time")
    assert not any(map(is_alive, workers))


def test_a_worker_that_dies_during_a_drain_costs_no_request(serve):
    server = serve(work())

    async def kill_in_the_middle():
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
            calls = asyncio.gather(*(client.post("/work", json=0.5) for _ in range(6)))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(ask_to_stop, server)
            for worker in server.workers():
                os.kill(worker, signal.SIGKILL)
            return await calls

    answers = asyncio.run(kill_in_the_middle())
    assert [answer.status_code for answer in answers] == [200] * 6
    assert server.wait() == 0


def test_a_worker_that_is_stopped_holds_nothing_up(serve):
    server = serve(work(grace=2))
    workers = server.workers()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    assert server.stop() == 0
    assert not any(map(is_alive, workers))


STARTS = """
    import os, time

    class Starts(ls.LitAPI):
        def setup(self, device):
            print("setting up")
            time.sleep(SECONDS)
            if os.path.exists("broken"):
                raise RuntimeError("broken")
        def predict(self, x):
            return x
        def teardown(self):
            time.sleep(0.3)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Starts(), path="/fixed"),
            ls.LitServer(Starts(), path="/elastic", min_workers=1, max_workers=3),
            port=0,
        )
"""


def test_a_server_can_be_stopped_before_it_is_ready(serve):
    server = serve(STARTS.replace("SECONDS", "600"), ready=False)
    server.wait_for_line(r"#0 \| setting up")
    workers = server.workers()
    assert server.stop() == 0
    assert not any(map(is_alive, workers))


def test_a_server_whose_workers_follow_the_load_stops(serve):
    server = serve(STARTS.replace("SECONDS", "0"))
    assert server.post("/elastic", json=1).json() == 1
    assert server.stop() == 0
    # Nothing was started meanwhile.
    assert server.output.count("setting up") == 2


def test_a_server_whose_workers_cannot_be_started_again_stops(serve, tmp_path):
    server = serve(STARTS.replace("SECONDS", "0"))
    (tmp_path / "broken").touch()
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    for mark in ("/fixed#0", "/elastic#0"):
        server.wait_for_line(rf"{mark}: gone: setup raised RuntimeError: broken")
    assert server.stop() == 0


HOLDS_THE_GIL = """
    import re

    class Holds(ls.LitAPI):
        def predict(self, x):
            re.match(r"(a+)+b", "a" * 60)

    ls.LitServer(Holds(), workers_per_device=2, heartbeat=60).run(port=0)
"""


def test_no_worker_outlives_a_server_that_was_killed_whatever_it_does(serve):
    server = serve(HOLDS_THE_GIL)
    workers = server.workers()
    with Connection(server) as connection:
        connection.send_head("/predict", "1")
        connection.send("1")
        time.sleep(0.3)
        os.kill(workers[0], signal.SIGSTOP)
        os.kill(parent_of(workers[0]), signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, workers)))


LEAVES = """
    import subprocess, threading, time

    class Leaves(ls.LitAPI):
        def setup(self, device):
            # No daemon: Python waits for it before it exits.
            threading.Thread(target=time.sleep, args=(600,)).start()
        def predict(self, seconds):
            time.sleep(seconds)
            # The shell ends at once, and its child a little later, without a parent.
            subprocess.run(["sh", "-c", "sleep 0.2 & exit 0"], check=True)
            return 0

    if __name__ == "__main__":
        options = {"kill_after": 1.5, "timeout": 1}
        server = ls.LitServer(Leaves(), path="/leaves", **options)
        ls.run_servers(server, port=0, grace=60)
"""


def zombies_of(server):
    states = (Path(f"/proc/{pid}/stat") for pid in descendants(server.process.pid))
    return [path for path in states if path.exists() and path.read_text().split(") ")[1][0] == "Z"]


def test_processes_of_models_do_not_delay_the_end(serve):
    server = serve(LEAVES)
    for _ in range(5):
        assert server.post("/leaves", json=0).status_code == 200
    time.sleep(0.5)
    wait_until(lambda: not zombies_of(server))
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 30, "its grace is 60 s"
    server.wait_for_line("/leaves#0: waiting for the process: it has answered everything")
    server.wait_for_line(r"/leaves#0: killed: its process did not exit within 1.5 s")


def test_requests_without_a_client_do_not_delay_the_end(serve):
    server = serve(LEAVES.replace('"timeout": 1', '"timeout": 30'))
    given_up = server.post("/leaves", json=50, headers={"X-Request-Timeout": "0.3"})
    assert given_up.status_code == 504
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 30, "its grace is 60 s"
    server.wait_for_line("/leaves#0: waiting: it computes 1 request, which no client waits for")


STARTS_PROCESSES = """
    import multiprocessing, subprocess
    from multiprocessing import shared_memory

    class Pools(ls.LitAPI):
        def setup(self, device):
            self.memory = shared_memory.SharedMemory(create=True, size=100)
            # One that is not a daemon and never ends: it holds the pipe that its parent reads.
            context = multiprocessing.get_context("fork")
            self.process = context.Process(target=wait)
            self.process.start()
            self.pids = [
                self.process.pid,
                subprocess.Popen(["sleep", "600"]).pid,
                subprocess.Popen(["sleep", "600"], start_new_session=NEW_SESSION).pid,
            ]
        def predict(self, x):
            return {"memory": self.memory.name, "pids": self.pids}
        def teardown(self):
            self.process.kill()

    def wait():
        import time
        time.sleep(600)

    if __name__ == "__main__":
        ls.run_servers(ls.LitServer(Pools(), path="/pools"), port=0)
"""


def started(server):
    """Returns the shared memory and the processes that the model has."""
    answer = server.post("/pools", json=0).json()
    return Path("/dev/shm", answer["memory"]), answer["pids"]


def test_processes_of_models_end_with_their_worker_and_server(serve):
    server = serve(STARTS_PROCESSES.replace("NEW_SESSION", "True"))
    memory, pids = started(server)
    assert memory.exists()
    os.kill(server.workers()[0], signal.SIGKILL)
    wait_until(lambda: not memory.exists())
    # The last one has its own session, and may stay as long as the server.
    wait_until(lambda: not any(map(is_alive, pids[:-1])))
    wait_until(lambda: server.post("/pools", json=0).status_code == 200)
    second_memory, second_pids = started(server)
    assert server.stop() == 0
    assert not second_memory.exists()
    assert not any(map(is_alive, [*pids, *second_pids]))
    assert "has not exited" not in server.output


def test_processes_of_models_end_with_a_killed_server(serve):
    server = serve(STARTS_PROCESSES.replace("NEW_SESSION", "False"))
    memory, pids = started(server)
    os.kill(parent_of(server.workers()[0]), signal.SIGKILL)
    assert server.wait() == 128 + signal.SIGKILL
    wait_until(lambda: not any(map(is_alive, pids)))
    memory.unlink(missing_ok=True)
