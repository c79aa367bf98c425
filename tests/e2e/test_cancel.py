"""Clients that leave: their requests are cancelled and do not delay others."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import h2.config
import h2.connection
import pytest
from conftest import PATIENCE, wait_until

# Every request writes its steps to a file, as lines.
HOOKS = """
    import asyncio, time

    def note(text):
        with open("notes", "a") as file:
            file.write(text + "\\n")

    class Waits(ls.LitAPI):
        def predict(self, request, context):
            note(f"began {request}")
            deadline = time.monotonic() + 20
            while request == "wait" and time.monotonic() < deadline and not context.cancelled:
                time.sleep(0.01)
            note(f"ended {request} {context.cancelled}")
            return request

    class Sleeps(ls.LitAPI):
        def predict(self, request):
            note(f"began {request}")
            time.sleep(1 if request == "sleep" else 0)
            return request

    class Streams(ls.LitAPI):
        def predict(self, request):
            try:
                for n in range(10**9 if request == "wait" else 3):
                    yield {"n": n}
                    time.sleep(0.01)
            finally:
                note(f"closed {request}")

    class Async(ls.LitAPI):
        async def predict(self, request):
            note(f"began {request}")
            try:
                await asyncio.sleep(20 if request == "wait" else 0)
            except asyncio.CancelledError:
                note(f"cancelled {request}")
                raise
            return request

    class AsyncStreams(ls.LitAPI):
        async def predict(self, request):
            try:
                for n in range(10**9 if request == "wait" else 3):
                    yield {"n": n}
                    await asyncio.sleep(0.01)
            finally:
                note(f"closed {request}")

    class Batches(ls.LitAPI):
        def predict(self, requests):
            note(f"batch {'+'.join(map(str, requests))}")
            time.sleep(2 if "sleep" in requests else 0)
            return requests

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(API(**HOW)),
            port=0,
        )
"""


@pytest.fixture
def notes(tmp_path):
    """Returns the lines that the hooks have written so far."""

    def read():
        path = tmp_path / "notes"
        return path.read_text().splitlines() if path.exists() else []

    return read


@pytest.fixture
def start(serve):
    def start(api, **how):
        return serve(HOOKS.replace("API(**HOW)", f"{api}(**{how})"))

    return start


def connect(server):
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), PATIENCE)


def send(server, value):
    """Sends a request over a new connection, which the caller closes."""
    body = json.dumps(value)
    client = connect(server)
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return client


class Http2:
    """One HTTP/2 connection, on which requests are reset."""

    def __init__(self, server):
        self._socket = connect(server)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._flush()

    def _flush(self):
        self._socket.sendall(self._h2.data_to_send())

    def send(self, value):
        body = json.dumps(value).encode()
        stream = self._h2.get_next_available_stream_id()
        headers = {
            ":method": "POST",
            ":path": "/predict",
            ":scheme": "http",
            ":authority": "x",
            "content-type": "application/json",
        }
        self._h2.send_headers(stream, [*headers.items()])
        self._h2.send_data(stream, body, end_stream=True)
        self._flush()
        return stream

    def reset(self, stream):
        self._h2.reset_stream(stream, 8)
        self._flush()

    def body_of(self, stream):
        """Reads until this stream ends."""
        body = b""
        while True:
            data = self._socket.recv(65536)
            assert data, "the server closed the connection"
            for event in self._h2.receive_data(data):
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
                if isinstance(event, h2.events.StreamEnded):
                    return body
            self._flush()

    def close(self):
        self._socket.close()


def test_a_job_that_waits_for_a_client_that_left_is_never_computed(start, notes):
    server = start("Sleeps")
    first = send(server, "sleep")
    wait_until(lambda: notes() == ["began sleep"])
    for n in range(20):
        send(server, f"gone {n}").close()
    assert server.post("/predict", json="stays").json() == "stays"
    assert notes() == ["began sleep", "began stays"]
    first.close()


def test_a_running_job_learns_that_its_client_left(start, notes):
    server = start("Waits")
    client = send(server, "wait")
    wait_until(lambda: notes() == ["began wait"])
    client.close()
    wait_until(lambda: len(notes()) == 2)
    assert notes() == ["began wait", "ended wait True"]
    assert server.post("/predict", json="next").json() == "next"
    assert notes()[2:] == ["began next", "ended next False"]


def test_half_of_a_request_is_not_a_request(start, notes):
    server = start("Sleeps")
    client = connect(server)
    client.sendall(
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100\r\n\r\n"half'
    )
    time.sleep(0.1)
    client.close()
    assert server.post("/predict", json="whole").json() == "whole"
    assert notes() == ["began whole"]


@pytest.mark.parametrize("api", ["Streams", "AsyncStreams"])
def test_a_stream_is_closed_when_its_client_leaves(start, notes, api):
    server = start(api, stream=True)
    client = send(server, "wait")
    received = b""
    while received.count(b"{") < 5:
        received += client.recv(65536)
    begin = time.monotonic()
    client.close()
    wait_until(lambda: notes() == ["closed wait"])
    assert time.monotonic() - begin < 5
    assert server.post("/predict", json="next").text.count("\n") == 3
    assert notes() == ["closed wait", "closed next"]


def test_an_async_hook_is_cancelled(start, notes):
    server = start("Async")
    clients = [send(server, "wait") for _ in range(3)]
    wait_until(lambda: notes() == ["began wait"] * 3)
    clients[0].close()
    wait_until(lambda: "cancelled wait" in notes())
    # The others go on.
    assert server.post("/predict", json="next").json() == "next"
    assert notes().count("cancelled wait") == 1
    for client in clients:
        client.close()
    wait_until(lambda: notes().count("cancelled wait") == 3)
    assert "Traceback" not in server.output


def test_a_client_that_left_takes_no_place_in_a_batch(start, notes):
    server = start("Batches", max_batch_size=4)
    first = send(server, "sleep")
    wait_until(lambda: notes() == ["batch sleep"])
    with ThreadPoolExecutor(4) as pool:
        for n in range(8):
            send(server, f"gone{n}").close()
        stays = [pool.submit(server.post, "/predict", json=n) for n in range(4)]
    assert [call.result().json() for call in stays] == [0, 1, 2, 3]
    assert "gone" not in "".join(notes())
    first.close()


def test_a_batch_does_not_wait_for_one_who_left(start, notes):
    """A batch waits from the arrival of its first present client, and ignores absent ones."""
    server = start("Batches", max_batch_size=2, batch_timeout=3)
    gone = send(server, "gone")
    time.sleep(0.3)
    gone.close()
    time.sleep(0.3)
    with ThreadPoolExecutor(2) as pool:
        begin = time.monotonic()
        pair = [*pool.map(lambda n: server.post("/predict", json=n), range(2))]
        took = time.monotonic() - begin
    assert [answer.json() for answer in pair] == [0, 1]
    assert sorted(notes()) in (["batch 0+1"], ["batch 1+0"])
    assert took < 2.5, "the two fill the batch"


def test_http2_resets_cancel_one_request_each(start, notes):
    server = start("Async")
    client = Http2(server)
    streams = [client.send("wait") for _ in range(3)]
    wait_until(lambda: notes() == ["began wait"] * 3)
    client.reset(streams[1])
    wait_until(lambda: "cancelled wait" in notes())
    assert json.loads(client.body_of(client.send("next"))) == "next"
    assert notes().count("cancelled wait") == 1
    client.close()
    wait_until(lambda: notes().count("cancelled wait") == 3)


def test_http2_resets_drop_jobs_that_wait_and_close_streams(start, notes):
    server = start("Streams", stream=True)
    client = Http2(server)
    first = client.send("wait")
    waiting = client.send("gone")
    time.sleep(0.3)
    client.reset(waiting)
    client.reset(first)
    wait_until(lambda: notes() == ["closed wait"])
    assert client.body_of(client.send("next")).count(b"\n") == 3
    assert notes() == ["closed wait", "closed next"]
    client.close()
