"""Each spelling of a path needs the key, token or limit of its endpoint."""

import json
import socket
import time

import h2.config
import h2.connection
import h2.events
import pytest

pytest.importorskip("fastapi")
jwt = pytest.importorskip("jwt")
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

PROGRAM = """
    from urllib.parse import unquote

    class Say(ls.LitAPI):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def predict(self, x):
            return "answer of " + self.name

    own = {{"api_keys": {{"olga": "env:OLGA"}}}}
    servers = [
        ls.LitServer(Say("secret"), path="/secret", **own),
        ls.LitServer(Say("words"), path="/übersetzen bitte", **own),
        ls.LitServer(Say("percent"), path="/%73ecret", **own),
        ls.LitServer(Say("scoped"), path="/scoped", {scopes}),
        ls.LitServer(Say("limited"), path="/limited", rate_limit="1/h"),
        ls.LitServer(Say("common"), path="/common"),
        ls.LitServer(Say("open chat"), path="/v1/chat/completions", name="open"),
        ls.LitServer(Say("own chat"), path="/v1/chat/completions", name="own", **own),
        ls.LitServer(Say("token chat"), path="/v1/chat/completions", name="token", {scopes}),
    ]
    {app}
    ls.run_servers(*servers, port=0, {tokens})
"""
APP_HOST = """
    for server in servers:
        @server.app.middleware("http")
        async def rewrite(request, call_next):
            path = unquote(request.headers.get("x-rewrite", ""))
            request.scope["path"] = path or request.scope["path"]
            return await call_next(request)
"""
KEY = ec.generate_private_key(ec.SECP256R1())


def token(scope):
    claims = {"iss": "https://id.example.org", "aud": "models", "sub": "tom", "scope": scope}
    claims["exp"] = time.time() + 600
    return "Bearer " + jwt.encode(claims, KEY, "ES256", headers={"kid": "k"})


#: What the server and its endpoint `/scoped` ask for.
TOKENS = (
    'jwt_scopes=["ocr"]',
    'jwt_issuer="https://id.example.org", jwt_audience="models", jwt_jwks="jwks"',
)
#: With keys for one endpoint alone, other paths are public.
KEYS = ('api_keys={"ocr": "env:OCR"}', "")


@pytest.fixture(params=["keys", "keys, app host", "tokens", "tokens, app host"])
def kind(request):
    return request.param


@pytest.fixture
def server(serve, tmp_path, kind):
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key()))
    (tmp_path / "jwks").write_text(json.dumps({"keys": [{**public, "kid": "k"}]}))
    scopes, tokens = TOKENS if "tokens" in kind else KEYS
    app = APP_HOST.strip() if "app host" in kind else ""
    program = PROGRAM.format(app=app, scopes=scopes, tokens=tokens)
    return serve(program, env={"OLGA": "key of olga", "OCR": "key of ocr"})


def spellings(path, own):
    """Yields spellings of the path that might bypass its guard, on a server with the name `own`."""
    plain = path.encode()
    percent = b"/" + b"".join(b"%%%02X" % byte for byte in plain[1:])
    yield plain
    yield b"/%" + b"%02x" % plain[1] + plain[2:]
    yield percent
    yield percent.lower()
    yield percent.replace(b"%", b"%25")
    yield percent.replace(b"%", b"%2525")
    yield plain.upper()
    yield b"/" + plain[1:].title()
    for end in ("/", "//", "/.", "/..", "/x/..", "?", "?x=1", "??", "#", ";", ";x=1", ".", "%20"):
        yield plain + end.encode()
    for byte in [*range(0x21), 0x7F, 0x80, 0x85, 0xA0, 0xFF]:
        yield plain + b"%%%02X" % byte
        yield b"/%%%02X" % byte + plain[1:]
    for end in (
        "%0D%0A",
        "%0A%0A",
        "%250A",
        "%25%30%41",
        "%E2%80%A8",
        "%C2%85",
        "%C0%8A",
        "%u000A",
    ):
        yield plain + end.encode()
    for end in (
        "%2F",
        "%252F",
        "%5C",
        "%3F",
        "%3Fx",
        "%23",
        "%3B",
        "%C0%AF",
        "%E0%80%AF",
        "%ED%A0%80",
    ):
        yield plain + end.encode()
    for begin in ("/", "/./", "/x/../", "/common/../", "/common%2F..%2F", "/%2e%2e", "/.%2f", "\\"):
        yield begin.encode() + plain
    for scheme in (b"http://", b"HTTP://", b"https://", b"//", b""):
        for name in (own, b"localhost", b"user@" + own, own.split(b":")[0] + b":1"):
            yield scheme + name + plain
            yield scheme + name + plain + b"?x=1#y"
    yield b"http://" + own + b"/%2e" + plain
    yield b"http://" + own + percent
    yield plain[1:]
    yield b"*"
    yield b"*" + plain
    yield b""
    yield b"#" + plain
    yield b"?" + plain
    yield plain + b"#/common"
    yield b"/common#" + plain
    yield b"/common?" + plain
    yield b"http://other.example" + plain
    yield b"http://user@other.example:1" + plain + b"%0A"
    # Overlong forms of the first letter, and the letter from another script.
    yield b"/%C1%B3" + plain[2:]
    yield "/\u0455".encode() + plain[2:]
    yield b"/%D1%95" + plain[2:]
    yield plain + b"\x0b"
    yield plain + b"\xc2\xa0"
    yield plain + b"\xff"


def over_http1(server, target, headers, body=b"1"):
    host, port = server.url.removeprefix("http://").split(":")
    head = [b"POST " + target + b" HTTP/1.1", b"Host: " + host.encode()]
    head += [f"{name}: {value}".encode() for name, value in headers.items()]
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        head += [b"Content-Length: %d" % len(body), b"Connection: close", b"", body]
        sock.sendall(b"\r\n".join(head))
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
    start, _, body = answer.partition(b"\r\n\r\n")
    return int(start.split()[1]), body


def over_http2(server, target, headers, body=b"1"):
    host, port = server.url.removeprefix("http://").split(":")
    config = h2.config.H2Configuration(
        header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    head = [(b":method", b"POST"), (b":path", target), (b":scheme", b"http")]
    head += [(b":authority", host.encode())]
    head += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    connection.send_headers(1, head)
    connection.send_data(1, body, end_stream=True)
    status, body = 400, b""
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(connection.data_to_send())
        while True:
            data = sock.recv(1 << 16)
            events = connection.receive_data(data) if data else [None]
            for event in events:
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif event is None or isinstance(
                    event,
                    (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated),
                ):
                    return status, body
            sock.sendall(connection.data_to_send())


def test_every_spelling_of_a_path_needs_what_the_endpoint_asks_for(server, kind):
    """An endpoint answers only callers that may use it, for many requests to one server."""
    olga, wrong = {"X-API-Key": "key of olga"}, {"X-API-Key": "wrong"}
    ocr, other = {"X-API-Key": "key of ocr"}, {"X-API-Key": "key of another"}
    if "tokens" in kind:
        ocr, other = {"Authorization": token("ocr")}, {"Authorization": token("other")}
    right = {"secret": olga, "words": olga, "percent": olga, "scoped": ocr}
    # Its caller has had all that it may have.
    assert over_http1(server, b"/limited", ocr)[0] == 200
    encoded = {"secret": "/secret", "words": "/%C3%BCbersetzen%20bitte", "percent": "/%2573ecret"}
    encoded |= {name: f"/{name}" for name in ("scoped", "limited", "common")}
    tried = 0
    for ask in (over_http1, over_http2):
        for name, path in encoded.items():
            if name in right:
                expected = (200, json.dumps(f"answer of {name}").encode())
                assert ask(server, path.encode(), right[name]) == expected
        for path in ("/secret", "/scoped", "/limited"):
            for spelt in spellings(path, server.url.removeprefix("http://").encode()):
                for headers in ({}, wrong, olga, ocr, other):
                    status, body = ask(server, spelt, headers)
                    tried += 1
                    if 200 <= status < 300:
                        [name] = [name for name in encoded if f"answer of {name}".encode() in body]
                        assert name == "common" or right.get(name) == headers, (spelt, headers)
    assert tried > 3000
    if "app host" in kind:
        # A middleware may change the path, but the request was admitted to the original one.
        for common, rewritten in (("/common", "/secret"), ("/x", "/common"), ("/x", "/secret%0A")):
            for ask in (over_http1, over_http2):
                refused = ask(server, common.encode(), {"X-Rewrite": rewritten, **ocr})
                assert refused[0] == 404, (common, rewritten)
        # What litplex says to the app, a client cannot.
        forged = {"x-litplex-admission": "endpoint-0", "x-litplex-peer": "http://127.0.0.1:1"}
        for drop in ({}, {"Connection": "x-litplex-admission, x-litplex-peer"}):
            for known in (b"/x", b"/common"):
                refused = over_http1(
                    server, known, {**forged, **drop, **ocr, "X-Rewrite": "/secret"}
                )
                assert refused[0] == 404


def test_every_spelling_of_a_shared_path_needs_what_its_model_asks_for(server, kind):
    """A key for one model of a path reaches no other, however the path and the model are spelt."""
    chat, olga = "/v1/chat/completions", {"X-API-Key": "key of olga"}
    ocr = {"Authorization": token("ocr")} if "tokens" in kind else {"X-API-Key": "key of ocr"}
    right = {"open": ocr, "own": olga, "token": ocr}
    bodies = {name: b'{"model": "%s"}' % name.encode() for name in right}
    for ask in (over_http1, over_http2):
        for name, headers in right.items():
            expected = (200, json.dumps(f"answer of {name} chat").encode())
            assert ask(server, chat.encode(), headers, bodies[name]) == expected
        tried = [*spellings(chat, server.url.removeprefix("http://").encode())]
        for spelt in tried:
            for name in ("own", "token"):
                for headers in ({}, olga, ocr):
                    status, body = ask(server, spelt, headers, bodies[name])
                    if 200 <= status < 300 and b"answer of common" not in body:
                        assert f"answer of {name} chat".encode() in body, spelt
                        assert headers == right[name], (spelt, headers)
        for model in (b'["own"]', b'"own "', b'"OWN"', b'"/own"', b'{"own": 1}', b"null", b'""'):
            status, _ = ask(server, chat.encode(), olga, b'{"model": %s}' % model)
            assert status in (404, 422), model
        for last in (b"open", b"token"):
            twice = b'{"model": "own", "mod\\u0065l": "%s"}' % last
            status, body = ask(server, chat.encode(), ocr, twice)
            assert (status, b"own" in body) == (200, False)
    if "app host" in kind:
        for path, rewritten in ((chat, "/secret"), ("/common", chat), (chat, "/common")):
            for method in (over_http1, over_http2):
                headers = {**ocr, "X-Rewrite": rewritten}
                assert method(server, path.encode(), headers, bodies["open"])[0] == 404


@pytest.mark.parametrize("kind", ["keys", "keys, app host"])
def test_an_endpoint_is_reached_by_each_spelling_of_its_path(server):
    """An endpoint with a path that is not ASCII."""
    own = server.url.removeprefix("http://").encode()
    olga = {"X-API-Key": "key of olga"}
    words = "/\u00fcbersetzen%20bitte".encode()
    targets = {
        "secret": [b"/secret", b"/%73ecret", b"/secret?x=1"],
        "words": [words, b"/%C3%BCbersetzen%20bitte", b"/%c3%bcbersetzen%20bitte?\xc3\xbc"],
    }
    for name, spelt in targets.items():
        for target in spelt:
            for ask in (over_http1, over_http2):
                expected = (200, json.dumps(f"answer of {name}").encode())
                assert ask(server, target, olga) == expected, (ask, target)
                assert ask(server, target, {})[0] == 401, (ask, target)
            for scheme in (b"http://", b"HTTP://"):
                for host in (own, own.replace(b"127.0.0.1", b"localhost")):
                    absolute = scheme + host + target
                    assert over_http1(server, absolute, olga) == expected, absolute
                    assert over_http1(server, absolute, {})[0] == 401, absolute


@pytest.mark.parametrize("kind", ["keys", "keys, app host"])
def test_a_slash_too_many_or_too_few_is_sent_on(server):
    for path, location in (
        ("/common/", "/common"),
        ("/common/?a=1&b=%20", "/common?a=1&b=%20"),
        ("/%C3%BCbersetzen%20bitte/", "/%C3%BCbersetzen%20bitte"),
        ("/health/", "/health"),
        ("/metrics/", "/metrics"),
    ):
        answer = server.client.request("POST", path, json=1, follow_redirects=False)
        if path.startswith(("/health", "/metrics")):
            answer = server.client.get(path, follow_redirects=False)
        assert answer.status_code == 307, (path, answer.text)
        assert answer.headers["location"].removeprefix(server.url) == location
    assert server.client.post("/common/?a=1", json=1, follow_redirects=True).status_code == 200
    for path in ("/common//", "/nothing/", "//common/"):
        assert server.client.post(server.url + path, json=1).status_code == 404, path
