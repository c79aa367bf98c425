"""Access by tokens: every route with every kind of token, and keys that change."""

import http.server
import json
import re
import ssl
import sys
import threading
import time

import pytest
from certificates import Authority
from conftest import wait_until

jwt = pytest.importorskip("jwt", reason="needs PyJWT, which needs a newer Python")
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402

ISSUER, AUDIENCE = "https://id.example.org", "models"

PROGRAM = """
    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    ann, bob = {{"ann": "env:ANN"}}, {{"bob": "env:BOB"}}
    ls.run_servers(
        ls.LitServer(Echo(), path="/common"),
        ls.LitServer(Echo(), path="/scoped", jwt_scopes=["read", "ocr"]),
        ls.LitServer(Echo(), path="/own", api_keys=bob),
        ls.LitServer(Echo(), path="/both", api_keys=bob, jwt_scopes=[]),
        port=0,
        api_keys=ann,
        jwt_issuer="https://id.example.org",
        jwt_audience="models",
        jwt_jwks="{jwks}",
        access_log="access.log",
    )
"""
ENV = {"ANN": "key of ann", "BOB": "key of bob"}


class Issuer:
    """Signs tokens, and publishes the public keys that it signs with."""

    def __init__(self, **keys):
        self.keys = keys

    @staticmethod
    def rsa():
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self):
        keys = []
        for name, key in self.keys.items():
            kind = {
                rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
                ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
                ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
            }
            [algorithm] = [of for base, of in kind.items() if isinstance(key, base)]
            public = json.loads(algorithm.to_jwk(key.public_key()))
            keys.append({**public, "kid": name, "use": "sig"})
        return json.dumps({"keys": keys})

    def token(self, kid="rsa", algorithm="RS256", **changed):
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "tom",
            "exp": time.time() + 300,
            "scope": "read ocr",
            **changed,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.keys[kid], algorithm, headers={"kid": kid})


@pytest.fixture(scope="module")
def issuer():
    curves = {"p256": ec.generate_private_key(ec.SECP256R1())}
    curves["p384"] = ec.generate_private_key(ec.SECP384R1())
    return Issuer(rsa=Issuer.rsa(), ed=ed25519.Ed25519PrivateKey.generate(), **curves)


@pytest.fixture
def guarded(serve, tmp_path, issuer):
    (tmp_path / "jwks.json").write_text(issuer.jwks())
    return serve(PROGRAM.format(jwks="jwks.json"), env=ENV)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


CALLS = """
    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    class Ask(ls.LitAPI):
        echo = ls.endpoint("/scoped")
        def predict(self, x):
            return self.echo(x)

    ls.run_servers(
        ls.LitServer(Ask(), path="/ask"{options}),
        ls.LitServer(Echo(), path="/scoped", jwt_scopes=["read", "ocr"]),
        port=0,
        api_keys={{"ann": "env:ANN"}},
        jwt_issuer="https://id.example.org",
        jwt_audience="models",
        jwt_jwks="jwks.json",
    )
"""


@pytest.mark.parametrize("options", ["", ", middlewares=[Passing]"])
def test_a_call_needs_the_scopes_of_its_endpoint_and_no_key(serve, tmp_path, issuer, options):
    (tmp_path / "jwks.json").write_text(issuer.jwks())
    passing = """
    class Passing:
        def __init__(self, app):
            self.app = app
        async def __call__(self, *given):
            await self.app(*given)
    """
    server = serve(passing + CALLS.format(options=options), env=ENV)
    assert server.post("/ask", json=1, headers={"X-API-Key": "key of ann"}).json() == 1
    assert server.post("/ask", json=1, headers=bearer(issuer.token())).json() == 1
    for scope in ("read", None, "read ocrs"):
        headers = bearer(issuer.token(scope=scope))
        # The client cannot give itself scopes.
        headers["X-Litplex-Admission"] = "endpoint-0; scopes=read ocr"
        refused = server.post("/ask", json=1, headers=headers)
        assert refused.status_code == 500
        assert "/ask#0 → /scoped failed with 403" in refused.json()["detail"]


def test_every_route_admits_exactly_the_callers_in_its_row(guarded, litplex, tmp_path, issuer):
    command = ["check", tmp_path / "server.py", "--json", "--python", sys.executable]
    status, text, _ = litplex(*command, env=ENV)
    assert status == 0
    rows = json.loads(text)["routes"]
    routes = [(row["methods"][0], row["path"], row["callers"]) for row in rows]
    told = {path: who for _, path, who in routes}
    assert told["/common"] == told["/"] == f"ann, tokens of {ISSUER}"
    assert told["/scoped"] == f"ann, tokens of {ISSUER} with read ocr"
    assert (told["/own"], told["/both"]) == ("bob", f"bob, tokens of {ISSUER}")

    stranger = Issuer(rsa=Issuer.rsa())
    tokens = {
        "expired": issuer.token(exp=time.time() - 90),
        "too early": issuer.token(nbf=time.time() + 300),
        "wrong issuer": issuer.token(iss="https://evil.example.org"),
        "wrong audience": issuer.token(aud=["others"]),
        "wrong key": stranger.token(),
        "no token": "a.b.c",
        "a secret": jwt.encode({"iss": ISSUER}, "s" * 32, "HS256", headers={"kid": "rsa"}),
        "not signed": jwt.encode({"iss": ISSUER, "aud": AUDIENCE}, None, "none"),
        "a key that is wrong": "key",
    }
    for method, path, who in routes:

        def ask(headers, method=method, path=path):
            return guarded.client.request(method, path, headers=headers, json=1)

        takes_tokens = who == "public" or ISSUER in who
        for key, holder in (("key of ann", "ann"), ("key of bob", "bob")):
            is_in = who == "public" or holder in who
            assert (ask({"X-API-Key": key}).status_code == 200) == is_in, (path, holder)
        assert ask(bearer(issuer.token())).status_code == (200 if takes_tokens else 401), path
        lacking = 403 if "with" in who else 200 if takes_tokens else 401
        assert ask(bearer(issuer.token(scope="read"))).status_code == lacking, path
        for name, token in tokens.items():
            answer = ask(bearer(token))
            assert answer.status_code == (200 if who == "public" else 401), (path, name)
        assert ask({}).status_code == (200 if who == "public" else 401), path


def test_a_refusal_has_the_reason_and_no_secret(guarded, issuer):
    def refused(path, token):
        answer = guarded.post(path, json=1, headers=bearer(token))
        challenges = answer.headers.get_list("www-authenticate")
        return answer.status_code, answer.json()["detail"], challenges

    token = issuer.token(exp=time.time() - 90)
    status, detail, challenges = refused("/common", token)
    assert (status, detail) == (401, "the token has expired")
    invalid = 'Bearer error="invalid_token", error_description="the token has expired"'
    assert challenges == [invalid, "APIKey"]
    assert token not in guarded.output
    status, detail, challenges = refused("/scoped", issuer.token(scope="read"))
    assert (status, detail) == (403, "missing scope: the token must have read ocr")
    assert challenges == ['Bearer error="insufficient_scope", scope="read ocr"']
    nothing = guarded.post("/common", json=1)
    assert nothing.json()["detail"] == (
        "Not authenticated. Send a key in the header X-API-Key, or a key or token as "
        "`Authorization: Bearer …`"
    )
    assert nothing.headers.get_list("www-authenticate") == ["Bearer", "APIKey"]


def test_tokens_may_be_signed_in_these_ways(guarded, issuer):
    ways = {
        "rsa": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        "p256": ("ES256",),
        "p384": ("ES384",),
        "ed": ("EdDSA",),
    }
    for kid, algorithms in ways.items():
        for algorithm in algorithms:
            token = issuer.token(kid, algorithm, scope=None, scp=["ocr", "read"])
            answer = guarded.post("/scoped", json=1, headers=bearer(token))
            assert answer.status_code == 200, (algorithm, answer.text)


def test_the_access_log_has_the_subject_of_a_token(guarded, issuer, tmp_path):
    guarded.post("/common", json=1, headers=bearer(issuer.token(sub="client-7")))
    log = tmp_path / "access.log"
    wait_until(lambda: '"/common"' in log.read_text())
    [line] = [line for line in log.read_text().splitlines() if '"/common"' in line]
    assert json.loads(line)["holder"] == "client-7"


def test_the_description_names_the_endpoints_that_take_tokens(guarded, issuer):
    described = guarded.client.get("/openapi.json", headers=bearer(issuer.token())).json()
    asked = {
        path: [name for way in of["post"]["security"] for name in way]
        for path, of in described["paths"].items()
    }
    assert asked["/own"] == ["key", "bearer"]
    assert asked["/scoped"] == ["key", "bearer", "token"]
    assert described["components"]["securitySchemes"]["token"]["bearerFormat"] == "JWT"
    assert "403" in described["paths"]["/scoped"]["post"]["responses"]


def test_a_file_of_keys_is_read_again(guarded, issuer, tmp_path):
    def status(token):
        return guarded.post("/common", json=1, headers=bearer(token)).status_code

    new = Issuer(new=Issuer.rsa())
    old_token, new_token = issuer.token(), new.token("new")
    assert (status(old_token), status(new_token)) == (200, 401)
    (tmp_path / "jwks.json").write_text(new.jwks())
    wait_until(lambda: status(new_token) == 200)
    assert status(old_token) == 401
    (tmp_path / "jwks.json").write_text("{}")
    guarded.wait_for_line("the issuer's keys stay as they were: .*invalid JSON Web Key Set")
    assert status(new_token) == 200
    # A set without keys is one, and withdraws them.
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    guarded.wait_for_line("every token is refused: .*it has no public key")
    assert status(new_token) == 401


class Publisher:
    """Answers with an issuer's keys over HTTP, or with 503 while it has none."""

    def __init__(self, pair=None):
        self.jwks = None
        self.tunnels: list[str] = []
        publisher = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = (publisher.jwks or "").encode()
                self.send_response(200 if body else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_CONNECT(self):
                """Answers as a proxy would, with a tunnel that ends here."""
                publisher.tunnels.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.close_connection = False

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http" if pair is None else "https"
        if pair is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pair)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{scheme}://127.0.0.1:{self.server.server_port}/jwks"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def publisher():
    publisher = Publisher()
    yield publisher
    publisher.close()


def test_keys_are_fetched_and_fetched_again_for_a_key_that_is_not_known(serve, issuer, publisher):
    server = serve(PROGRAM.format(jwks=publisher.url), env=ENV)

    def status(token):
        return server.post("/common", json=1, headers=bearer(token)).status_code

    server.wait_for_line("the issuer's keys cannot be fetched from http.*503")
    answer = server.post("/common", json=1, headers=bearer(issuer.token()))
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    assert server.post("/common", json=1, headers={"X-API-Key": "key of ann"}).is_success
    publisher.jwks = issuer.jwks()
    wait_until(lambda: status(issuer.token()) == 200)
    # The issuer signs with another key from now on: clients with new tokens are admitted.
    new = Issuer(new=Issuer.rsa())
    publisher.jwks = new.jwks()
    wait_until(lambda: status(new.token("new")) == 200)
    assert status(issuer.token()) in (401, 503)


def test_keys_are_fetched_only_from_a_server_with_a_trusted_certificate(serve, issuer, tmp_path):
    authority = Authority(tmp_path, "ours")
    publisher = Publisher(authority.issue("issuer"))
    publisher.jwks = issuer.jwks()
    try:
        ca = f'{publisher.url}", jwt_ca="{authority.cert}'
        server = serve(PROGRAM.format(jwks=ca), env=ENV)
        token = bearer(issuer.token())
        wait_until(lambda: server.post("/common", json=1, headers=token).is_success)
        # Browsers do not know that authority.
        other = serve(PROGRAM.format(jwks=publisher.url), env=ENV)
        other.wait_for_line("the issuer's keys cannot be fetched from https.*(?i:certificate)")
        assert other.post("/common", json=1, headers=token).status_code == 503
    finally:
        publisher.close()


def test_keys_are_fetched_through_the_proxy_of_the_environment(serve, issuer, publisher):
    publisher.jwks = issuer.jwks()
    proxy = publisher.url.removesuffix("/jwks")
    program = PROGRAM.format(jwks="http://issuer.invalid/jwks")
    server = serve(program, env={**ENV, "HTTP_PROXY": proxy, "HTTPS_PROXY": "http://wrong.invalid"})
    token = bearer(issuer.token())
    wait_until(lambda: server.post("/common", json=1, headers=token).is_success)
    assert publisher.tunnels == ["issuer.invalid:80"]
    secret = {"http_proxy": "socks5://ann:secret@proxy", "NO_PROXY": "other.invalid"}
    refused = serve(program, env={**ENV, **secret}, ready=False)
    assert refused.wait() != 0
    assert "`jwt_jwks`: invalid http_proxy: expected the address of a proxy" in refused.output
    assert "secret" not in refused.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"jwt_jwks": "nowhere"}, "server: `jwt_jwks`: .*nowhere: No such file"),
        ({"jwt_jwks": "server.py"}, "server.py: invalid JSON Web Key Set"),
        ({"jwt_jwks": "https://id", "jwt_ca": "nowhere"}, "server: `jwt_ca`: .*cannot be read"),
        ({"jwt_jwks": None}, "`jwt_jwks` is missing: `jwt_issuer`, `jwt_audience` and"),
    ],
)
def test_keys_that_are_not_there_end_the_start(serve, options, says):
    options = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, **options}
    given = ", ".join(f"{name}={value!r}" for name, value in options.items() if value)
    server = serve(
        f"""
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        ls.LitServer(Echo()).run(port=0, {given})
        """,
        ready=False,
    )
    assert server.wait() != 0
    assert re.search(says, server.output), server.output
