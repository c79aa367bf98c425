"""The end of a server: everything in flight completes, and nothing stays behind."""

import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from conftest import is_alive, parent_of, wait_until

SERVER = """
    import time

    class Slow(ls.LitAPI):
        def predict(self, xs):
            time.sleep(0.5)
            return xs

    class Streams(ls.LitAPI):
        async def predict(self, n):
            import asyncio
            for i in range(n):
                yield {"i": i}
                await asyncio.sleep(0.1)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Slow(max_batch_size=8), path="/slow"),
            ls.LitServer(Streams(stream=True), path="/streams"),
            port=0,
        )
"""


def answer_to(server, request):
    """Sends bytes over a new connection; returns all bytes until the server closes it."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), 20) as client:
        client.sendall(request)
        received = b""
        while piece := client.recv(65536):
            received += piece
    return received.decode().lower()


def test_requests_in_flight_complete_and_new_ones_are_refused(serve):
    server = serve(SERVER)
    workers = server.workers()
    outcomes: Counter[object] = Counter()
    begun = threading.Semaphore(0)

    def trace(event, _):
        if event == "http11.send_request_body.complete":
            begun.release()

    # Making one takes long: it is shared.
    limits = httpx.Limits(max_connections=None)
    client = httpx.Client(base_url=server.url, timeout=30, limits=limits)
    sent = {"extensions": {"trace": trace}}

    def call(n):
        try:
            response = client.post("/slow", json=n, **sent)
            outcomes[response.status_code, response.json() == n] += 1
        except httpx.HTTPError as error:
            outcomes[repr(error)] += 1

    def stream():
        try:
            with client.stream("POST", "/streams", json=30, **sent) as response:
                outcomes["stream", "".join(response.iter_text()).count("\n")] += 1
        except httpx.HTTPError as error:
            outcomes[repr(error)] += 1

    threads = [threading.Thread(target=stream) for _ in range(10)]
    threads += [threading.Thread(target=call, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert begun.acquire(timeout=20)
    time.sleep(0.5)
    server.signal(signal.SIGTERM)
    server.wait_for_line("stopping; requests in flight")
    refused = answer_to(server, b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
    assert refused.startswith("http/1.1 503 ")
    assert "\r\nconnection: close\r\n" in refused
    assert "\r\nretry-after: 1\r\n" in refused
    for thread in threads:
        thread.join(60)
    client.close()
    assert outcomes == {(200, True): 40, ("stream", 30): 10}
    assert server.wait() == 0
    assert not any(map(is_alive, workers))
    assert "Traceback" not in server.output


def test_grace_that_runs_out_ends_what_is_in_flight(serve):
    server = serve("""
        import time

        class Slow(ls.LitAPI):
            def predict(self, x):
                time.sleep(600)

        if __name__ == "__main__":
            ls.LitServer(Slow()).run(port=0, grace=1)
    """)
    workers = server.workers()
    outcome = []

    def call():
        try:
            outcome.append(httpx.post(f"{server.url}/predict", json=1, timeout=30).status_code)
        except httpx.HTTPError as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    server.wait_for_request("/predict")
    begin = time.monotonic()
    server.stop()
    assert 0.9 <= time.monotonic() - begin < 20
    thread.join(60)
    assert outcome and outcome[0] != 200
    assert not any(map(is_alive, workers))


def test_nothing_outlives_a_server_that_is_killed(serve, tmp_path_factory):
    directory = tmp_path_factory.mktemp("r")
    runtime = {"XDG_RUNTIME_DIR": str(directory), "TMPDIR": str(directory)}
    kept = Path(directory, "litplex")
    server = serve(SERVER, env=runtime)
    workers = server.workers()
    # A request that is computed when it happens.
    address = urlsplit(server.url)
    client = socket.create_connection((address.hostname, address.port), 20)
    client.sendall(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
    time.sleep(0.2)
    (left,) = kept.iterdir()
    binary = parent_of(workers[0])
    begin = time.monotonic()
    os.kill(binary, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, [binary, *workers])))
    assert time.monotonic() - begin < 5
    client.close()
    server.wait()
    second = serve(SERVER, env=runtime)
    assert not left.exists()
    assert len(list(kept.iterdir())) == 1
    assert second.stop() == 0
    assert list(kept.iterdir()) == []
