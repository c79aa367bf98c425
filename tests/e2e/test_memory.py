"""The memory that clients can make the server hold, and for how long."""

import socket

import h2.connection
import httpx
from conftest import wait_until

ECHO = """
    class Echo(ls.LitAPI):
        def predict(self, x):
            return len(x)

    ls.LitServer(Echo(), path="/e").run(port=0, max_buffered_bytes=8_000_000)
"""


def connect(server):
    return socket.create_connection(("127.0.0.1", httpx.URL(server.url).port), timeout=30)


def begin(server, headers, body=b""):
    """Sends the beginning of a request, and returns its connection."""
    connection = connect(server)
    connection.sendall(b"POST /e HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n\r\n" + body)
    return connection


def held(server):
    lines = server.client.get("/metrics").text.splitlines()
    line = next(line for line in lines if line.startswith("litplex_buffered_body_bytes "))
    return int(float(line.split()[1]))


def test_bodies_cost_what_they_are(serve):
    """One server: each part leaves nothing behind for the next."""
    server = serve(ECHO)

    chunks = begin(server, b"Transfer-Encoding: chunked", b"1\r\n1\r\n" * 300_000)
    wait_until(lambda: held(server) >= 300_000)
    assert held(server) < 400_000
    chunks.close()
    wait_until(lambda: held(server) == 0)

    announced = [begin(server, b"Content-Length: 67108864") for _ in range(16)]
    assert server.post("/e", json="a" * 100_000).json() == 100_000
    assert held(server) == 0
    for connection in announced:
        connection.close()

    # Small bodies count too, on both versions of HTTP.
    small = [begin(server, b"Content-Length: 9000", b"1" * 8000) for _ in range(10)]
    wait_until(lambda: held(server) >= 80_000)
    for connection in small:
        connection.close()
    multiplexed = connect(server)
    client = h2.connection.H2Connection()
    client.initiate_connection()
    for stream in range(1, 21, 2):
        names = {":method": "POST", ":path": "/e", ":scheme": "http", ":authority": "a"}
        client.send_headers(stream, [*names.items()])
        client.send_data(stream, b"1" * 4000)
    multiplexed.sendall(client.data_to_send())
    wait_until(lambda: held(server) >= 40_000)
    multiplexed.close()
    wait_until(lambda: held(server) == 0)

    # The budget holds one body: a second one is refused, and the next one is served.
    large = begin(server, b"Content-Length: 7900000", b"1" * 7_500_000)
    wait_until(lambda: held(server) >= 7_500_000)
    assert server.post("/e", json="a" * 600_000).status_code == 503
    assert server.post("/e", json="a" * 100).json() == 100
    large.close()
    wait_until(lambda: held(server) == 0)
    assert server.post("/e", json="a" * 600_000).json() == 600_000


FAN_OUT = """
    import time

    class Embed(ls.LitAPI):
        def batch(self, inputs):
            return inputs

        def unbatch(self, outputs):
            return outputs

        def decode_request(self, request, context):
            return request.input

        def predict(self, texts):
            if "wait" in texts:
                time.sleep(0.3)
            if "fail" in texts:
                raise ls.HTTPException(409, "this one fails")
            return [[1.0] for _ in texts]

        def encode_response(self, vector):
            return {"embeddings": [vector]}

    embed = Embed(spec=ls.OpenAIEmbeddingSpec(), max_batch_size=4)
    ls.run_servers(ls.LitServer(embed), port=0, max_buffered_bytes=8_000_000)
"""


def embed(server, inputs, headers=None):
    return server.post("/v1/embeddings", json={"input": inputs}, headers=headers)


def test_the_jobs_of_a_request_end_with_it(serve):
    """One that fails ends the others; a client that leaves ends all; nothing stays reserved."""
    server = serve(FAN_OUT)
    assert len(embed(server, ["a"] * 100).json()["data"]) == 100
    wait_until(lambda: held(server) == 0)

    assert embed(server, ["a"] * 50 + ["fail"] + ["wait"] * 150).status_code == 409
    wait_until(lambda: held(server) == 0)

    body = b'{"input": [%s]}' % b",".join([b'"wait"'] * 1000)
    connection = connect(server)
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection.sendall(head + body)
    wait_until(lambda: held(server) > 200_000)
    connection.close()
    # 1,000 inputs in batches of 4 would take 75 s.
    wait_until(lambda: held(server) == 0)
    assert len(embed(server, ["a"] * 10).json()["data"]) == 10

    # All jobs share the headers: 250 times 40 KB would be more than there is.
    long = {"x-long": "a" * 40_000}
    response = embed(server, ["a"] * 500, long)
    assert len(response.json().get("data", [])) == 500, response.text
    wait_until(lambda: held(server) == 0)


def test_headers_of_many_streams_are_counted(serve):
    server = serve(ECHO)
    multiplexed = connect(server)
    client = h2.connection.H2Connection()
    client.initiate_connection()
    names = {":method": "POST", ":path": "/e", ":scheme": "http", ":authority": "a"}
    for stream in range(1, 21, 2):
        client.send_headers(stream, [*names.items(), ("x-long", "a" * 10_000)])
    multiplexed.sendall(client.data_to_send())
    wait_until(lambda: held(server) >= 100_000)
    multiplexed.close()
    wait_until(lambda: held(server) == 0)
