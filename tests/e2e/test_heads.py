"""A head that can be read in more than one way is refused, with or without an app host."""

import json
import socket

import h2.config
import h2.connection
import h2.events
import pytest

pytest.importorskip("fastapi")

PROGRAM = """
    class Headers(ls.LitAPI):
        def predict(self, x, context):
            return [value for name, value in context.headers.items() if name == "host"]

    server = ls.LitServer(Headers(), path="/e")
    {app}
    server.run(port=0)
"""
APP_HOST = """
    @server.app.middleware("http")
    async def pass_on(request, call_next):
        return await call_next(request)
"""


@pytest.fixture(params=["", APP_HOST.strip()], ids=["plain", "app host"])
def server(serve, request):
    return serve(PROGRAM.format(app=request.param))


def over_http1(server, head, body=b"1"):
    """Sends a head as it is, and returns the status and body of the first answer."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + body)
        with sock.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            fields = dict(line.split(b": ", 1) for line in iter(answer.readline, b"\r\n"))
            return status, answer.read(int(fields.get(b"content-length", b"0")))


def over_http2(server, changed, extra=()):
    host, port = server.url.removeprefix("http://").split(":")
    config = h2.config.H2Configuration(
        validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    head = {":method": "POST", ":path": "/e", ":scheme": "http", ":authority": "localhost"}
    connection.send_headers(1, [*(head | changed).items(), *extra])
    connection.send_data(1, b"1", end_stream=True)
    status, body = None, b""
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(connection.data_to_send())
        while data := sock.recv(1 << 16):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    return status, body
    return status, body


POST = b"POST /e HTTP/1.1\nContent-Length: 1\n"
HTTP1 = [
    (POST + b"Host: localhost", 200),
    (POST + b"Host: localhost\nHost: evil.example", 400),
    (POST + b"Host: localhost\nHost: localhost", 400),
    (POST + b"Host: evil.example@localhost", 400),
    (POST + b"Host: a b", 400),
    (POST + b"Host: localhost/?", 400),
    # Over HTTP/1.1 the address counts, and the header beside it means nothing.
    (POST.replace(b"/e", b"http://localhost/e") + b"Host: evil.example", 200),
    (POST.replace(b"/e", b"http://evil.example/e") + b"Host: localhost", 403),
    (b"GET e HTTP/1.1\nHost: localhost", 400),
    (b"GET localhost:22 HTTP/1.1\nHost: localhost", 400),
    (b"CONNECT localhost:22 HTTP/1.1\nHost: localhost:22", 405),
    (b"CONNECT /e HTTP/1.1\nHost: localhost", 405),
    (b"OPTIONS * HTTP/1.1\nHost: localhost", 404),
]
CODINGS = ["gzip, chunked", "chunked, chunked", "gzip\nTransfer-Encoding: chunked"]


def test_a_request_that_can_be_read_in_two_ways_is_refused(server):
    for head, expected in HTTP1:
        status, body = over_http1(server, head)
        assert status == expected, (head, status, body)
        if status == 200:
            assert json.loads(body) == ["localhost"], head
        else:
            assert json.loads(body)["detail"], head
    chunked = b"1\r\n1\r\n0\r\n\r\n"
    post = b"POST /e HTTP/1.1\nHost: localhost\nTransfer-Encoding: "
    assert over_http1(server, post + b"chunked", chunked)[0] == 200
    for coding in CODINGS:
        status, body = over_http1(server, post + coding.encode(), chunked)
        assert status == 501 and b"Content-Encoding" in body, (coding, status, body)

    for changed, extra, expected in (
        ({}, [], 200),
        ({}, [("host", "localhost")], 200),
        ({}, [("host", "LOCALHOST")], 200),
        ({}, [("host", "evil.example")], 400),
        ({":authority": "evil.example"}, [("host", "localhost")], 400),
        ({":authority": "evil.example@localhost"}, [], 400),
    ):
        status, body = over_http2(server, changed, extra)
        assert status == expected, (changed, extra, status, body)
        if status == 200:
            assert json.loads(body) == ["localhost"], (changed, extra)

    # As many headers as the server takes reach the model behind an app host, too.
    many = "".join(f"\nx{number}: 1" for number in range(97)).encode()
    assert over_http1(server, POST + b"Host: localhost" + many)[0] == 200
    long = b"\nx: " + b"a" * 65_000
    assert over_http1(server, POST + b"Host: localhost" + long)[0] == 200
    assert over_http2(server, {}, [(f"x{number}", "1") for number in range(390)])[0] == 200


def test_requests_that_cannot_be_parsed_fill_no_log(server):
    for _ in range(20):
        assert over_http1(server, POST.replace(b"POST", b"BREW") + b"Host: a")[0] in (400, 405)
    assert over_http1(server, POST + b"Host: localhost")[0] == 200
    assert "Invalid HTTP request" not in server.output
