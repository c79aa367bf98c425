"""Bodies on the wire: refusals in the middle of an upload, codings, forms, headers, idle time."""

import contextlib
import gzip
import shutil
import socket
import subprocess
import time
import zlib

import httpx
import pytest
from certificates import Authority
from conftest import PATIENCE, wait_until
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

PROGRAM = """
import json
import time

class Small(ls.LitAPI):
    def predict(self, x):
        return "never"

class Look(ls.LitAPI):
    def decode_request(self, request: ls.Form, context):
        return request, context

    def predict(self, given):
        form, context = given
        def shown(part):
            return part if isinstance(part, str) else [
                part.filename, part.content_type, bytes(part.read()).hex()
            ]
        headers = dict(context.headers)
        parts = [[k, shown(v)] for k, v in form.multi_items()]
        found = {"parts": parts, "name": headers.get("x-name")}
        return ls.Response(json.dumps(found), 200, {"X-Name": "J\\u00f6rg"})

class Echo(ls.LitAPI):
    def predict(self, x):
        return len(x) if isinstance(x, bytes) else x

class Say(ls.LitAPI):
    def predict(self, x):
        headers = {f"x-{n}": x.get("value", "a") for n in range(x["n"])}
        return ls.Response("hi", x["status"], headers)

class Slow(ls.LitAPI):
    def predict(self, x):
        yield "a"
        time.sleep(1.2)
        yield "b"

if __name__ == "__main__":
    servers = [
        ls.LitServer(Small(), path="/small", max_body_bytes=1_000_000),
        ls.LitServer(Look(), path="/look"),
        ls.LitServer(Echo(), path="/echo", max_body_bytes=1_000_000),
        ls.LitServer(Say(), path="/say"),
        ls.LitServer(Slow(stream=True), path="/slow", ping_interval=0.3),
        ls.LitServer(Small(), path="/closed", api_keys={"ann": "sha256:" + "0" * 64}),
    ]
    ls.run_servers(*servers, port=0, keep_alive_timeout=3 OPTIONS)
"""

LARGE = 20_000_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"), "ours")


def program(options=""):
    return PROGRAM.replace(" OPTIONS", options)


def refuse_uploads(server, authority=None):
    """Each client must read the answer while, or after, it sends far too much."""
    verify = authority.trust() if authority else True
    for http2 in (False, True):
        http1 = not http2
        with httpx.Client(
            base_url=server.url, verify=verify, timeout=PATIENCE, http1=http1, http2=http2
        ) as client:
            assert client.post("/small", content=b"1" * LARGE).status_code == 413
            pieces = (b"1" * 50_000 for _ in range(LARGE // 50_000))
            assert client.post("/small", content=pieces).status_code == 413
            assert client.post("/closed", content=b"1" * LARGE).status_code == 401
            assert client.post("/echo", json=1).json() == 1
    requests = pytest.importorskip("requests")
    ca = str(authority.cert) if authority else True
    for path, status in (("/small", 413), ("/closed", 401)):
        refused = requests.post(server.url + path, data=b"1" * LARGE, verify=ca, timeout=PATIENCE)
        assert refused.status_code == status
        assert refused.headers["connection"] == "close"


@pytest.mark.parametrize("tls", [False, True])
def test_a_refusal_is_read_by_a_client_that_still_sends(serve, authority, tls, tmp_path):
    options = ""
    if tls:
        pair = authority.issue("server")
        options = f", tls_cert={str(pair.cert)!r}, tls_key={str(pair.key)!r}"
    # A slow client seems idle while it writes to a stream that has ended.
    patient = program(options).replace("keep_alive_timeout=3", "keep_alive_timeout=60")
    server = serve(patient)
    refuse_uploads(server, authority if tls else None)
    curl = shutil.which("curl")
    if curl is None:
        return
    large = tmp_path / "large"
    large.write_bytes(b"1" * LARGE)
    for version in ("--http1.1", "--http2" if tls else "--http2-prior-knowledge"):
        for expect in ("Expect:", "X-Nothing: 1"):
            command = [curl, "-sS", version, "--cacert", str(authority.cert), "-H", expect]
            command += ["-w", "%{http_code}", "-o", "/dev/null", "--data-binary", f"@{large}"]
            done = subprocess.run(
                [*command, server.url + "/small"], capture_output=True, text=True, timeout=60
            )
            assert (done.returncode, done.stdout) == (0, "413"), done.stderr


def multipart(*parts):
    lines = [
        b"--b\r\nContent-Disposition: form-data" + head + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    ]
    return b"".join(lines) + b"--b--\r\n"


def test_bodies_and_headers_are_passed_on_as_they_are(serve):
    server = serve(program())
    client = server.client

    # Codings.
    data = b"1" * 900_000
    packed = {
        "gzip": gzip.compress(data),
        "x-gzip": gzip.compress(data),
        "deflate": zlib.compress(data),
        "gzip, deflate": zlib.compress(gzip.compress(data)),
        "identity": data,
    }
    raw = {"Content-Type": "image/png"}
    for name, body in packed.items():
        answer = client.post("/echo", content=body, headers={**raw, "Content-Encoding": name})
        assert (answer.status_code, answer.json()) == (200, len(data)), name
    chunks = iter([packed["gzip"][:100], packed["gzip"][100:]])
    answer = client.post("/echo", content=chunks, headers={**raw, "Content-Encoding": "gzip"})
    assert answer.json() == len(data)
    answer = client.post("/echo", content=b"x", headers={**raw, "Content-Encoding": "compress"})
    assert answer.status_code == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate, br, zstd"
    bomb = gzip.compress(b"1" * 5_000_000)
    answer = client.post("/echo", content=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    answer = client.post("/echo", content=b"none", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400

    # Forms, and headers in Latin-1.
    form = multipart(
        (b"; name=a; filename*=utf-8''gr%C3%B6.png", b"\xff\x00\r\n--c"),
        (b'; filename="gr\xf6.png"; name="b"\r\nContent-Type: image/png', b"\x89PNG"),
        (b'; name="gr\xc3\xb6"', b"J\xf6rg"),
    )
    answer = client.post(
        "/look",
        content=form,
        headers={
            "Content-Type": "multipart/form-data; boundary=b",
            "X-Name": "J\u00f6".encode("latin-1"),
        },
    )
    assert answer.json() == {
        "parts": [
            ["a", ["gr\u00f6.png", None, b"\xff\x00\r\n--c".hex()]],
            ["b", ["gr\u00f6.png", "image/png", b"\x89PNG".hex()]],
            ["gr\u00f6", "J\u00f6rg"],
        ],
        "name": "J\u00f6",
    }
    assert dict(answer.headers.raw)[b"x-name"] == b"J\xf6rg"
    urlencoded = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/look", content=b"a=1+2&b=%f6", headers=urlencoded)
    assert answer.json()["parts"] == [["a", "1 2"], ["b", "\u00f6"]]
    for body in (b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\x89PNG\r\n\x1a\n"):
        answer = client.post("/look", content=body, headers=urlencoded)
        assert answer.status_code == 415
        assert "image/jpeg" in answer.json()["detail"]

    # What HTTP cannot carry.
    for said in ({"status": 101, "n": 0}, {"status": 200, "n": 40_000}):
        assert client.post("/say", json=said).status_code == 500
        wait_until(lambda: any("cannot carry" in line for line in server.lines))
        server.lines[:] = [line for line in server.lines if "cannot carry" not in line]
    for wrong in ({"status": 5000, "n": 0}, {"status": 200, "n": 1, "value": "a\r\nb: c"}):
        assert client.post("/say", json=wrong).status_code == 500
    assert client.post("/say", json={"status": 299, "n": 90}).status_code == 299
    assert not any("panicked" in line for line in server.lines)

    # Streams behind proxies.
    events = client.post("/slow", json=1, headers={"Accept": "text/event-stream"})
    assert events.headers["x-accel-buffering"] == "no"
    first, *pings, last = events.text.strip().split("\n\n")
    assert (first, set(pings), last) == ("data: a", {": ping"}, "data: b")
    assert ": ping" not in client.post("/slow", json=1).text


NAMED = b"Content-Disposition: form-data; name=a"
FILE = NAMED + b"; filename=f"
MULTIPART, URLENCODED = "multipart/form-data; boundary=b", "application/x-www-form-urlencoded"


def part(head, content=b"x"):
    return b"--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def one(head, content=b"x", end=b"--b--\r\n"):
    return part(head, content) + end


#: Forms, and the values that hooks get: those that Starlette reads, where it is right.
FORMS = [
    (MULTIPART, one(NAMED, b"[1, 2"), [["a", "[1, 2"]]),
    (MULTIPART, one(NAMED, b'{"x": 1}'), [["a", '{"x": 1}']]),
    (MULTIPART, one(NAMED) + b"epilogue", [["a", "x"]]),
    (MULTIPART, one(NAMED) + one(NAMED), [["a", "x"]]),
    (MULTIPART, b"preamble\r\n" + one(NAMED), [["a", "x"]]),
    (MULTIPART, b"\r\n" + one(NAMED, end=b"--b--"), [["a", "x"]]),
    (MULTIPART, part(NAMED) + one(NAMED, b"y"), [["a", "x"], ["a", "y"]]),
    (MULTIPART, one(b'Content-Disposition: form-data; name=""'), [["", "x"]]),
    (MULTIPART, one(b'content-disposition:form-data;name="a;\\"b"'), [['a;"b', "x"]]),
    (MULTIPART, one(NAMED + b'; filename=""', b""), [["a", ["", None, ""]]]),
    (MULTIPART, one(NAMED + b"; name=b"), [["b", "x"]]),
    (MULTIPART, one(FILE + b"; filename=g"), [["a", ["g", None, "78"]]]),
    (MULTIPART, one(FILE + b"\r\n" + NAMED), [["a", "x"]]),
    (
        MULTIPART,
        one(FILE + b"\r\nContent-Type: image/png\r\nContent-Type: text/plain"),
        [["a", ["f", "image/png", "78"]]],
    ),
    (MULTIPART, one(NAMED, "\u00f6".encode()), [["a", "\u00f6"]]),
    (MULTIPART, one(NAMED, b"\xf6"), [["a", "\u00f6"]]),
    *(
        (
            MULTIPART,
            one(NAMED + b"\r\nContent-Type: text/plain; charset=" + charset, text),
            [["a", a]],
        )
        for charset, text, a in [
            (b'"UTF-16LE"', "\u00f6".encode("utf-16le"), "\u00f6"),
            (b"iso-8859-1", b"\xf6", "\u00f6"),
            (b"windows-1252", b"\x80", "\u20ac"),
            (b"utf-8", b"\xf6", "\u00f6"),
            (b"hex", b"6161", "6161"),
            (b"none", b"x", "x"),
        ]
    ),
    ('Multipart/Form-Data; charset=x; BOUNDARY="b" ; x=1', one(NAMED), [["a", "x"]]),
    ('multipart/form-data; boundary="b c"', one(NAMED).replace(b"--b", b"--b c"), [["a", "x"]]),
    (MULTIPART, b"", []),
    (MULTIPART, b"--b--\r\n", []),
    (URLENCODED, b"[0]=a&[0]=b&{=c", [["[0]", "a"], ["[0]", "b"], ["{", "c"]]),
    (
        URLENCODED,
        b"a=1+2%2B&b=%zz&c=%&d=%2",
        [["a", "1 2+"], ["b", "%zz"], ["c", "%"], ["d", "%2"]],
    ),
    (URLENCODED, b"&&a=1;b=2&=x&c&d=e=f&", [["a", "1;b=2"], ["", "x"], ["c", ""], ["d", "e=f"]]),
    (URLENCODED + ";charset=UTF-8", b"a=%C3%B6&b=%00", [["a", "\u00f6"], ["b", "\0"]]),
    (URLENCODED, b"", []),
    (URLENCODED, b"&".join([b"a=1"] * 1000), [["a", "1"]] * 1000),
]

#: What is no form.
BAD_FORMS = [
    (400, MULTIPART, one(b"Content-Disposition: form-data;\r\n name=a")),
    (400, MULTIPART, one(NAMED + b"\r\nX: 1\r\n\t2")),
    (400, MULTIPART, one(NAMED + b"\r\nX")),
    (400, MULTIPART, one(b"Content-Disposition : form-data; name=a")),
    (400, MULTIPART, one(b"Content-Disposition: form-data; filename=f")),
    (400, MULTIPART, one(b"Content-Type: text/plain")),
    (400, MULTIPART, b"--b\r\n\r\nx\r\n" + one(NAMED)),
    (400, MULTIPART, one(NAMED).replace(b"\r\n", b"\n")),
    (400, MULTIPART, part(NAMED)),
    (400, "multipart/form-data", one(NAMED)),
    (400, "multipart/form-data; boundary=", one(NAMED)),
    (400, MULTIPART, part(NAMED) * 1000 + one(NAMED)),
    (400, URLENCODED, b"&".join([b"a=1"] * 1001)),
    (415, URLENCODED, b'{"a": "b=c"}'),
    (415, URLENCODED, b'{"a": 1'),
    (415, URLENCODED, b" [1, 2]"),
]


def test_forms_are_read_as_starlette_reads_them(serve):
    server = serve(program())
    for content_type, body, parts in FORMS:
        answer = server.client.post("/look", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 200, (answer.text, body[:200])
        assert answer.json()["parts"] == parts, body[:200]
    for status, content_type, body in BAD_FORMS:
        answer = server.client.post("/look", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == status, (answer.text, body[:200])


def test_idle_connections_end_in_their_time(serve):
    server = serve(program())
    port = httpx.URL(server.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        for _ in range(2):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(1)
        assert connection.recv(1000) == b"", "it is closed"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        client = H2Connection()
        client.initiate_connection()
        names = {":method": "GET", ":path": "/livez", ":scheme": "http", ":authority": "a"}
        client.send_headers(1, [*names.items()], end_stream=True)
        said = set()
        while "ConnectionTerminated" not in said:
            connection.sendall(client.data_to_send())
            data = connection.recv(65536)
            assert data, "it says that it ends"
            # What follows is a ping, which this client does not expect.
            with contextlib.suppress(ProtocolError):
                said |= {type(event).__name__ for event in client.receive_data(data)}
                continue
            break
        while connection.recv(65536):
            pass
    assert "StreamEnded" in said


def test_an_app_host_carries_what_the_server_does(serve):
    server = serve("""
        class Say(ls.LitAPI):
            def predict(self, x):
                headers = {f"x-{n}": "J\\u00f6rg" for n in range(x["n"])}
                return ls.Response("hi", x["status"], headers)

        server = ls.LitServer(Say(), path="/say", max_body_bytes=1_000_000)

        @server.app.middleware("http")
        async def pass_on(request, call_next):
            return await call_next(request)

        server.run(port=0)
    """)
    answer = server.post("/say", json={"status": 299, "n": 90})
    assert answer.status_code == 299
    assert dict(answer.headers.raw)[b"x-89"] == b"J\xf6rg"
    assert server.post("/say", json={"status": 599, "n": 0}).status_code == 599
    assert server.post("/say", json={"status": 999, "n": 0}).status_code == 500
    for said in ({"status": 101, "n": 0}, {"status": 200, "n": 40_000}):
        assert server.post("/say", json=said).status_code == 500
    many = {"status": 200, "n": 300}
    said = httpx.Request("POST", f"{server.url}/say", json=many).read()
    head = f"POST /say HTTP/1.1\r\nHost: a\r\nContent-Length: {len(said)}\r\n\r\n"
    port = httpx.URL(server.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(head.encode() + said)
        answered = connection.makefile("rb").readline()
    assert answered.startswith(b"HTTP/1.1 200")
    for body in (b"1" * LARGE, (b"1" * 50_000 for _ in range(LARGE // 50_000))):
        assert server.post("/say", content=body).status_code == 413
