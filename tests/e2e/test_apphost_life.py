"""The process of the app host: requests that pass it, its start, failures and end."""

import os
import signal
import socket
import threading
import time

import httpx
import pytest
from conftest import descendants, wait_until

STREAM = """
    import time
    from pathlib import Path
    from starlette.middleware.base import BaseHTTPMiddleware

    class Slow(ls.LitAPI):
        def predict(self, x, context):
            try:
                for number in range(x):
                    yield number
                    time.sleep(0.1)
                    if context.cancelled:
                        Path("cancelled").touch()
                        return
            except GeneratorExit:
                Path("cancelled").touch()
                raise

    class Whole(ls.LitAPI):
        def predict(self, x, context):
            while not context.cancelled:
                time.sleep(0.01)
            Path("cancelled").touch()

    class Broken(ls.LitAPI):
        def predict(self, x):
            yield x
            raise ValueError("broken")

    class Tagged(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["x-tag"] = "1"
            return response

    ls.LitServer(
        [Slow(stream=True), Whole(api_path="/whole"), Broken(stream=True, api_path="/broken")],
        middlewares=[Tagged], timeout=60,
    ).run(port=0)
"""


def test_a_stream_passes_as_it_comes(serve):
    server = serve(STREAM)
    with server.client.stream("POST", "/predict", json=10) as response:
        assert response.headers["x-tag"] == "1"
        times = [(time.monotonic(), line) for line in response.iter_lines()]
    assert [int(line) for _, line in times] == list(range(10))
    assert times[-1][0] - times[0][0] > 0.5


def test_a_stream_that_breaks_is_not_complete(serve):
    server = serve(STREAM)
    with (
        pytest.raises(httpx.RemoteProtocolError),
        server.client.stream("POST", "/broken", json=1) as response,
    ):
        response.read()
    assert "BrokenOff" not in server.output


def test_a_client_that_leaves_cancels(serve, tmp_path):
    server = serve(STREAM)
    with server.client.stream("POST", "/predict", json=600) as response:
        next(response.iter_lines())
    wait_until((tmp_path / "cancelled").exists)


def test_a_client_that_waits_no_longer_cancels(serve, tmp_path):
    server = serve(STREAM)
    body = b"x" * 100_000
    head = f"POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body) + 2}\r\n\r\n"
    address = (server.client.base_url.host, server.client.base_url.port)
    with socket.create_connection(address) as client:
        client.sendall(head.encode() + b'"' + body + b'"')
        time.sleep(0.5)
        assert not (tmp_path / "cancelled").exists()
    wait_until((tmp_path / "cancelled").exists)


@pytest.mark.parametrize("whom", ["server", "all"])
def test_requests_finish_when_the_server_stops(serve, whom):
    server = serve(STREAM)
    also = descendants(server.process.pid) if whom == "all" else []
    got = []

    def read():
        with server.client.stream("POST", "/predict", json=15) as response:
            got.extend(response.iter_lines())

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: server.client.get("/health").status_code == 200)
    time.sleep(0.3)
    # Service managers signal every process.
    for pid in [server.process.pid, *also]:
        os.kill(pid, signal.SIGTERM)
    reader.join(30)
    assert [int(line) for line in got] == list(range(15))
    assert server.wait() == 0


def test_an_app_host_that_dies_comes_back(serve):
    server = serve(STREAM)
    [first] = server.app_hosts()
    with (
        pytest.raises(httpx.RemoteProtocolError),
        server.client.stream("POST", "/predict", json=600) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        os.kill(first, signal.SIGKILL)
        for _ in lines:
            pass

    def answers():
        answer = server.post("/predict", json=1)
        assert answer.status_code in (200, 502, 503)
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"
        return answer.status_code == 200

    wait_until(answers)
    assert first not in server.app_hosts()
    server.wait_for_line("app#0: gone: its process was killed by signal 9")


def test_an_app_host_that_hangs_is_not_waited_for(serve):
    server = serve(STREAM.replace("timeout=60", "timeout=1"))
    [app_host] = server.app_hosts()
    os.kill(app_host, signal.SIGSTOP)
    answer = server.post("/predict", json=1)
    assert answer.status_code == 504
    assert "did not respond in time" in answer.json()["detail"]
    os.kill(app_host, signal.SIGCONT)
    assert server.post("/predict", json=1).status_code == 200


def test_no_program_pays_for_what_it_does_not_use(serve):
    server = serve(
        """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        ls.LitServer(Echo()).run(port=0)
        """
    )
    assert server.post("/predict", json=1).json() == 1
    assert server.app_hosts() == []


def test_an_app_that_cannot_start_ends_the_server(serve):
    server = serve(
        """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        class Fails:
            def __init__(self, app):
                raise RuntimeError("no such luck")

        ls.LitServer(Echo(), middlewares=[Fails]).run(port=0)
        """,
        ready=False,
    )
    assert server.wait() != 0
    assert "RuntimeError: no such luck" in server.output
    assert "error: the program's app: its process exited with status" in server.output


HANGS = """
    import time

    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    server = ls.LitServer(Echo(), path="/e")

    @server.app.middleware("http")
    async def block(request, call_next):
        if seconds := request.headers.get("x-block"):
            time.sleep(float(seconds))
        return await call_next(request)

    {own}
    ls.run_servers(server, port=0, app_heartbeat=0.5)
"""
OWN = """
    @server.app.get("/livez")
    def livez():
        return "the program's own"
"""


@pytest.mark.parametrize("own", ["", OWN.strip()])
def test_an_app_host_that_hangs_is_replaced_and_probes_do_not_hang_with_it(serve, own):
    server = serve(HANGS.format(own=own))
    [first] = server.app_hosts()
    # A loop that is blocked for a while is a slow one.
    assert server.post("/e", json=1, headers={"X-Block": "0.8"}).status_code == 200
    assert server.app_hosts() == [first]
    statuses = []

    def ask(path):
        statuses.append(server.post(path, json=1, headers={"X-Block": "600"}).status_code)

    asked = [threading.Thread(target=ask, args=[path]) for path in ("/e", "/nothing", "/info")]
    for each in asked:
        each.start()
    time.sleep(0.3)
    for path in ("/readyz", "/health", "/metrics", *(() if own else ("/livez",))):
        assert server.client.get(path, timeout=5).status_code == 200, path
        assert server.app_hosts() == [first], "it hangs still"
    for each in asked:
        each.join()
    assert statuses == [502, 502, 502]
    server.wait_for_line("it hangs: something blocks its loop")
    wait_until(lambda: server.post("/e", json=1).status_code == 200)
    assert server.app_hosts() != [first]
    assert server.client.get("/livez").text == ('"the program\'s own"' if own else "ok")


def test_one_that_is_stopped_is_replaced(serve):
    server = serve(HANGS.format(own=""))
    [first] = server.app_hosts()
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: server.client.get("/readyz").status_code == 503)
    wait_until(lambda: server.app_hosts() not in ([], [first]))
    wait_until(lambda: server.client.get("/readyz").status_code == 200)
    wait_until(lambda: server.post("/e", json=1).status_code == 200)
