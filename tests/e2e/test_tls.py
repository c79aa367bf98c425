"""HTTPS: negotiated protocols, client certificates, and changed certificates."""

import contextlib
import os
import shutil
import socket
import ssl
import sys
from types import SimpleNamespace

import httpx
import pytest
from certificates import Authority, openssl
from conftest import LITPLEX, PATIENCE, Server, wait_until

API = """
class API(ls.LitAPI):
    def predict(self, x):
        return x

class Stream(ls.LitAPI):
    def __init__(self):
        super().__init__(api_path="/stream", stream=True)

    def predict(self, x):
        yield from range(x)

apis = [API(), Stream()]
"""

#: The errors with which the connection of a refused client ends.
REFUSED = (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    ours, theirs, others = (Authority(directory, name) for name in ("ours", "theirs", "others"))
    return SimpleNamespace(
        ours=ours,
        theirs=theirs,
        others=others,
        server=ours.issue("server"),
        client=theirs.issue("client"),
        stranger=others.issue("stranger"),
    )


@pytest.fixture
def client_of():
    """Makes clients that end with the test."""
    with contextlib.ExitStack() as stack:

        def make(url, context, **options):
            client = httpx.Client(base_url=url, verify=context, timeout=PATIENCE, **options)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def serve_tls(serve, made):
    def start(options="", api=API, *, pair=made.server, env=None):
        files = f"tls_cert={str(pair.cert)!r}, tls_key={str(pair.key)!r}"
        return serve(f"{api}\nls.LitServer(apis).run(port=0, {files}, {options})", env=env)

    return start


def address_of(server):
    return "127.0.0.1", httpx.URL(server.url).port


@contextlib.contextmanager
def connected(server, context):
    with (
        socket.create_connection(address_of(server), PATIENCE) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        yield secure


@pytest.mark.parametrize(("options", "version"), [({"http2": True}, "HTTP/2"), ({}, "HTTP/1.1")])
def test_clients_choose_the_protocol(serve_tls, made, client_of, options, version):
    server = serve_tls()
    assert server.url.startswith("https://127.0.0.1:")
    client = client_of(server.url, made.ours.trust(), **options)
    answer = client.post("/predict", json={"a": "ß" * 100_000})
    assert (answer.status_code, answer.http_version) == (200, version)
    assert answer.json() == {"a": "ß" * 100_000}
    with client.stream("POST", "/stream", json=3) as answer:
        assert [*answer.iter_lines()] == ["0", "1", "2"]


def test_the_scheme_is_shown_with_the_address(serve_tls, runtime, litplex):
    server = serve_tls(env=runtime)
    server.wait_for_line(rf"all endpoints serve at {server.url}")
    status, out, _ = litplex("ps")
    assert (status, out.split()[0]) == (0, server.url)


def test_the_client_that_is_generated_asks_over_https(serve_tls, tmp_path):
    serve_tls("generate_client_file=True")
    assert "URL = 'https://127.0.0.1:" in (tmp_path / "client.py").read_text()


def test_several_threads_speak_it(serve_tls, made, client_of):
    server = serve_tls("http_threads=2")
    for _ in range(4):
        assert client_of(server.url, made.ours.trust()).post("/predict", json=1).json() == 1


def test_a_client_that_leaves_cancels_its_request(serve_tls, made):
    server = serve_tls(
        api="""
class API(ls.LitAPI):
    def predict(self, x, context):
        print("began", flush=True)
        while not context.cancelled:
            pass
        print("cancelled", flush=True)

apis = [API()]
""",
    )
    with connected(server, made.ours.trust()) as sock:
        sock.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1")
        server.wait_for_line("began")
    server.wait_for_line("cancelled")


def test_bytes_that_are_not_tls_disturb_no_connection(serve_tls, made, client_of):
    server = serve_tls()
    address, said = address_of(server), {}
    with socket.create_connection(address, PATIENCE) as silent:
        for request in (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\0"):
            with socket.create_connection(address, PATIENCE) as plain:
                plain.sendall(request)
                plain.shutdown(socket.SHUT_WR)
                said[request] = read_to_end(plain)
        client = client_of(server.url, made.ours.trust())
        assert client.get("/health").text == "ok"
        silent.close()
    # At most an alert, which is no HTTP.
    assert all(len(answer) < 10 and not answer.startswith(b"HTTP") for answer in said.values())
    assert "ERROR" not in server.output and "WARN" not in server.output, server.output
    assert server.stop() == 0


def read_to_end(sock):
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(4096):
            pieces.append(piece)
    return b"".join(pieces)


def test_a_client_that_does_not_trust_the_server_goes(serve_tls, made, client_of):
    server = serve_tls()
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        client_of(server.url, made.others.trust()).get("/health")
    assert client_of(server.url, made.ours.trust()).get("/health").text == "ok"


def test_only_clients_with_a_certificate_are_admitted(serve_tls, made, client_of):
    server = serve_tls(f"tls_client_ca={str(made.theirs.cert)!r}")
    for context in (made.ours.trust(), made.ours.trust(made.stranger)):
        with pytest.raises(REFUSED):
            client_of(server.url, context).get("/health")
    client = client_of(server.url, made.ours.trust(made.client))
    assert client.post("/predict", json=1).json() == 1


def issuer_of(server, authority):
    """Returns the issuer of the certificate that a new connection gets; none where that is not
    the authority."""
    try:
        with connected(server, authority.trust()) as sock:
            return dict(pair for (pair,) in sock.getpeercert()["issuer"])["commonName"]
    except ssl.SSLCertVerificationError:
        return None


def put(pair, directory):
    for file, name in ((pair.cert, "tls.crt"), (pair.key, "tls.key")):
        shutil.copy(file, directory / "new")
        os.replace(directory / "new", directory / name)


@pytest.fixture
def renewable(made, tmp_path):
    """A pair of files in a directory of the test's own."""
    put(made.server, tmp_path)
    return SimpleNamespace(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")


def test_new_certificates_are_for_new_connections(serve_tls, made, renewable, tmp_path, client_of):
    server = serve_tls(pair=renewable)
    for_ever = httpx.Limits(keepalive_expiry=None)
    client = client_of(server.url, made.ours.trust(), limits=for_ever)
    assert client.get("/health").text == "ok"
    assert issuer_of(server, made.ours) == "ours authority"

    renewable.cert.write_text("no certificate")
    server.wait_for_line(
        r"WARN .*TLS reload failed, keeping the current.*: `tls_cert`: .*tls\.crt holds no"
    )
    assert issuer_of(server, made.ours) == "ours authority"

    put(made.others.issue("renewed"), tmp_path)
    server.wait_for_line("TLS: reloaded the changed files")
    assert issuer_of(server, made.others) == "others authority"
    assert issuer_of(server, made.ours) is None
    # It keeps its connection, or it would have to trust the other.
    assert client.get("/health").text == "ok"
    assert server.output.count("TLS reload failed") == 1


def test_a_link_that_points_to_new_files_is_noticed(serve_tls, made, tmp_path, client_of):
    """As Kubernetes does it: two links in a row, of which one is replaced."""
    for name, pair in (("first", made.server), ("second", made.others.issue("linked"))):
        (tmp_path / name).mkdir()
        put(pair, tmp_path / name)
        for file in ("tls.crt", "tls.key"):
            os.utime(tmp_path / name / file, (1e9, 1e9))
    (tmp_path / "data").symlink_to("first")
    pair = SimpleNamespace(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    for file in (pair.cert, pair.key):
        file.symlink_to(f"data/{file.name}")
    server = serve_tls(pair=pair)
    assert issuer_of(server, made.ours) == "ours authority"
    (tmp_path / "new").symlink_to("second")
    os.replace(tmp_path / "new", tmp_path / "data")
    wait_until(lambda: issuer_of(server, made.others) == "others authority")


def test_the_authorities_of_clients_may_change(serve_tls, made, tmp_path, client_of):
    vouches = tmp_path / "ca.pem"
    shutil.copy(made.theirs.cert, vouches)
    server = serve_tls(f"tls_client_ca={str(vouches)!r}")
    before, after = made.ours.trust(made.client), made.ours.trust(made.stranger)
    assert client_of(server.url, before).get("/health").text == "ok"
    shutil.copy(made.others.cert, vouches)
    server.wait_for_line("TLS: reloaded the changed files")
    assert client_of(server.url, after).get("/health").text == "ok"
    with pytest.raises(REFUSED):
        client_of(server.url, before).get("/health")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tls_cert": "missing.pem"}, "`tls_cert`: {}/missing.pem cannot be read (No such file"),
        ({"tls_key": "missing.pem"}, "`tls_key`: {}/missing.pem cannot be read (No such file"),
        ({"tls_key": "other.key"}, "`tls_key`: {}/other.key is not the key of the first"),
        ({"tls_key": "locked.key"}, "`tls_key`: {}/locked.key is encrypted; write the key without"),
        ({"tls_key": "old.key"}, "`tls_key`: {}/old.key is encrypted; write the key without"),
        ({"tls_cert": "garbage"}, "`tls_cert`: {}/garbage holds no certificate"),
        ({"tls_cert": "server.key"}, "`tls_cert`: {}/server.key holds no certificate"),
        ({"tls_key": "server.pem"}, "`tls_key`: {}/server.pem holds no private key"),
        ({"tls_cert": "cut.pem"}, "`tls_cert`: {}/cut.pem is not PEM: a section has no -----END"),
        ({"tls_client_ca": "garbage"}, "`tls_client_ca`: {}/garbage holds no certificate"),
        ({"tls_client_ca": "."}, "`tls_client_ca`: {}/. cannot be read (Is a directory"),
    ],
)
def test_errors_are_reported_before_models_load(run, made, script, tmp_path, options, says):
    shutil.copy(made.server.cert, tmp_path / "server.pem")
    shutil.copy(made.server.key, tmp_path / "server.key")
    shutil.copy(made.client.key, tmp_path / "other.key")
    (tmp_path / "garbage").write_bytes(bytes(range(256)))
    (tmp_path / "cut.pem").write_text(made.server.cert.read_text()[:100])
    locked, old = tmp_path / "locked.key", tmp_path / "old.key"
    openssl("pkcs8", "-topk8", "-in", made.server.key, "-out", locked, "-passout", "pass:x")
    openssl("ec", "-aes128", "-in", made.server.key, "-out", old, "-passout", "pass:x")
    given = {"tls_cert": "server.pem", "tls_key": "server.key", **options}
    script(API + f"\nls.LitServer(apis).run(port=0, **{given!r})")
    program = run([sys.executable, "server.py"])
    assert program.wait() == 2
    assert f"error: server: {says.format(tmp_path)}" in program.output
    assert "loading" not in program.output


def test_tls_options_have_other_spellings(run, made, script, tmp_path, client_of):
    script("class API(ls.LitAPI):\n    def predict(self, x):\n        return x", "a.py")
    (tmp_path / "tls").mkdir()
    put(made.server, tmp_path / "tls")
    text = '[[endpoint]]\npath = "/predict"\napi = "a.py:API"\n'
    (tmp_path / "plain.toml").write_text("port = 0\n" + text)
    files = 'tls_cert = "../tls/tls.crt"\ntls_key = "../tls/tls.key"\n'
    # Names are relative to the file.
    (tmp_path / "etc").mkdir()
    (tmp_path / "a.py").rename(tmp_path / "etc" / "a.py")
    (tmp_path / "etc" / "tls.toml").write_text("port = 0\n" + files + text)
    shutil.copy(tmp_path / "etc" / "a.py", tmp_path / "a.py")
    flags = ["--tls-cert", "tls/tls.crt", "--tls-key", "tls/tls.key"]
    for arguments in (["etc/tls.toml"], ["plain.toml", *flags]):
        server = run([LITPLEX, "serve", *arguments], kind=Server).wait_until_ready()
        assert client_of(server.url, made.ours.trust()).post("/predict", json=1).json() == 1
    program = run([LITPLEX, "serve", "plain.toml", "--tls-cert", "tls/tls.crt"])
    assert (program.wait(), "--tls-key" in program.output) == (2, True)
    program = run([LITPLEX, "check", "plain.toml"])
    assert (program.wait(), "http://" in program.output) == (0, True)
    (tmp_path / "tls" / "tls.key").unlink()
    program = run([LITPLEX, "check", "etc/tls.toml"])
    assert (program.wait(), "tls.key cannot be read" in program.output) == (2, True)


def test_the_app_host_sees_the_scheme(serve_tls, made, client_of):
    pytest.importorskip("fastapi")
    server = serve_tls(
        api=API
        + """
from fastapi import Request
server = ls.LitServer(apis)

@server.app.get("/seen")
def seen(request: Request):
    return [str(request.url_for("seen")), request.client.host]

ls.LitServer = lambda _: server
"""
    )
    seen = client_of(server.url, made.ours.trust()).get("/seen").json()
    assert seen == [f"{server.url}/seen", "127.0.0.1"]
