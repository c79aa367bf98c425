"""The admin API on a port of its own: keys, roles, browsers and TLS."""

import hashlib
import json
import os
from types import SimpleNamespace

import httpx
import pytest
from certificates import Authority
from conftest import PATIENCE, wait_until

SERVER = """
    import os

    class Double(ls.LitAPI):
        def predict(self, x):
            return [2 * x, sorted(name for name in os.environ if "OPERATOR" in name)]

    if __name__ == "__main__":
        ls.LitServer(Double(), path="/double").run(
            port=0,
            api_keys={"caller": "env:CALLER"},
            admin_port=0,
            admin_keys={"ann": "env:OPERATOR_ANN"},
            admin_keys_file="operators",
            admin_read_keys={"bob": "env:OPERATOR_BOB"},
            OPTIONS
        )
"""

KEYS = {"CALLER": "call", "OPERATOR_ANN": "all", "OPERATOR_BOB": "look"}


@pytest.fixture
def operated(serve, runtime, tmp_path):
    """Starts a server whose admin API has a port; returns the server and a client of the port."""
    clients = []

    def start(options="", verify=True):
        (tmp_path / "operators").write_text("# none yet\n")
        text = SERVER.replace("OPTIONS", options)
        server = serve(text, env={**runtime, **KEYS}, ready=False)
        url = server.wait_for_line(r"the admin API, for holders of `admin_keys`: (\S+)")[1]
        if verify is True:
            server.wait_until_ready()
        else:
            server.wait_for_line("ready: all endpoints")
        admin = httpx.Client(base_url=url, timeout=PATIENCE, verify=verify)
        clients.append(admin)
        return SimpleNamespace(server=server, admin=admin, url=url)

    yield start
    for client in clients:
        client.close()


def test_only_keys_of_operators_open_the_port(operated, tmp_path):
    it = operated()

    def ask(method, path, key=None, **headers):
        headers = {**headers, **({"X-API-Key": key} if key else {})}
        answer = it.admin.request(method, path, headers=headers)
        return answer.status_code, answer.json().get("error", "") if answer.content else ""

    for key, says in ((None, "Not authenticated"), ("wrong", "Invalid"), ("call", "Invalid")):
        for path in ("/v1/server", "/v1/logs", "/openapi.json", "/v1/no", "/dashboard/no"):
            status, error = ask("GET", path, key)
            assert (status, says in error) == (401, True), (key, path, error)
        assert ask("POST", "/v1/stop", key)[0] == 401
    refused = it.admin.get("/v1/server")
    assert refused.headers["WWW-Authenticate"] == "APIKey"

    assert ask("GET", "/v1/server", "all")[0] == 200
    told = it.admin.get("/v1/server", headers={"Authorization": "Bearer look"}).json()
    assert (told["url"], told["admin_url"]) == (it.server.url, it.url)
    pause = ("POST", "/v1/endpoints/%2Fdouble/pause")
    status, error = ask(*pause, "look")
    assert status == 403
    assert error == (
        "the key `bob` may only read (`admin_read_keys`); POST /v1/endpoints/%2Fdouble/pause needs "
        "a key of `admin_keys`"
    )
    assert ask("PUT", "/v1/log-level", "look")[0] == ask("POST", "/v1/stop", "look")[0] == 403
    assert ask(*pause, "all")[0] == 200
    assert ask("POST", "/v1/endpoints/%2Fdouble/resume", "all")[0] == 200
    it.server.wait_for_line(r"admin API: POST /v1/endpoints/%2Fdouble/pause with the key `ann`")

    # The page of another site is refused although it has a key.
    for headers in (
        {"Origin": "https://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert ask("POST", "/v1/stop", "all", **headers)[0] == 403, headers
    assert ask("GET", "/v1/server", "all", Origin=it.url)[0] == 200

    # A file of keys is read again.
    line = "eve sha256:" + hashlib.sha256(b"new").hexdigest()
    (tmp_path / "operators").write_text(f"{line}\n")
    wait_until(lambda: ask(*pause, "new")[0] == 200)
    assert ask("POST", "/v1/endpoints/%2Fdouble/resume", "new")[0] == 200


def test_the_data_port_has_no_operations(operated):
    it = operated()
    for path in ("/v1/server", "/v1/logs", "/v1/endpoints/%2Fdouble"):
        for key, status in (("call", 404), ("all", 401)):
            answer = it.server.client.get(path, headers={"X-API-Key": key})
            assert answer.status_code == status, (path, key)
    answer = it.server.post("/double", json=1, headers={"X-API-Key": "all"})
    assert answer.status_code == 401
    # Models do not get the keys of operators.
    answer = it.server.post("/double", json=1, headers={"X-API-Key": "call"})
    assert answer.json() == [2, []]


def test_the_command_uses_the_port(operated, litplex):
    it = operated()
    url = ("--url", it.url)
    status, out, err = litplex("ps", *url, "--key", "look")
    assert (status, err, it.server.url in out) == (0, "", True)
    by_variable = {"LITPLEX_ADMIN_KEY": "all"}
    status, out, err = litplex("scale", "/double", "2", *url, "--json", env=by_variable)
    assert (status, json.loads(out)["wanted"]) == (0, 2), err
    status, _, err = litplex("scale", "/double", "1", *url, "--key", "look")
    assert (status, "the key `bob` may only read" in err) == (1, True)
    status, _, err = litplex("ps", *url)
    assert (status, "Not authenticated." in err) == (1, True)
    assert '"event":"scaled"' in litplex("events", *url, "--key", "look", "--json")[1]
    assert litplex("logs", *url, "--key", "look")[1] != ""
    status, _, err = litplex("ps", "--url", "127.0.0.1:1", "--key", "x")
    assert (status, "expected `http://host:port`" in err) == (2, True)
    status, _, err = litplex("ps", "--url", "http://127.0.0.1:1", "--key", "x")
    assert (status, "no server answers at http://127.0.0.1:1" in err) == (1, True)
    status, out, err = litplex("stop", *url, env=by_variable)
    assert (status, err, out.endswith("stops\nstopped\n")) == (0, "", True)


def test_the_port_speaks_tls_if_the_server_does(operated, litplex, tmp_path):
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    pair, own = ours.issue("server"), theirs.issue("client")
    context = ours.trust()
    context.load_cert_chain(own.cert, own.key)
    it = operated(
        f"tls_cert={str(pair.cert)!r}, tls_key={str(pair.key)!r}, "
        f"tls_client_ca={str(theirs.cert)!r}",
        verify=context,
    )
    assert it.url.startswith("https://127.0.0.1:")
    assert it.admin.get("/v1/server", headers={"X-API-Key": "look"}).status_code == 200
    assert it.admin.get("/v1/server").status_code == 401
    both = tmp_path / "both.pem"
    both.write_text(own.cert.read_text() + own.key.read_text())
    trusted = ("--url", it.url, "--ca", str(ours.cert), "--cert", str(both))
    status, out, err = litplex("ps", *trusted, env={"LITPLEX_ADMIN_KEY": "look"})
    assert (status, err, "/double" in out) == (0, "", True)
    status, _, err = litplex("ps", "--url", it.url, "--key", "look")
    assert (status, "certificate" in err) == (1, True)


def test_the_address_of_endpoints_is_told_from_that_of_the_admin_api(operated, litplex):
    def errors(url):
        status, _, error = litplex("ps", "--url", url, "--key", "look")
        assert status == 1
        assert f"`{url}` is the address of the endpoints of a litplex server" in error
        return error

    it = operated()
    assert f"give `--url {it.url}`" in errors(it.server.url)
    port = it.server.url.rsplit(":", 1)[1]
    assert f"give `--url {it.url}`" in errors(f"http://localhost:{port}")
    # Without keys of callers, and with the dashboard on the port of the endpoints.
    it = operated('admin_dashboard=True, healthcheck_path="/healthz"')
    shared = f"{it.server.url}/dashboard"
    assert f"give `--url {shared}`" in errors(it.server.url)
    status, out, error = litplex("ps", "--url", f"{shared}/", "--key", "look")
    assert (status, "/double" in out) == (0, True), error
    status, _, error = litplex("ps", "--url", shared, "--key", "wrong")
    assert (status, "Invalid API Key" in error) == (1, True)


def test_a_server_without_an_admin_port_is_asked_by_its_port(serve, runtime, litplex):
    text = """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        if __name__ == "__main__":
            ls.LitServer(Echo(), path="/echo").run(port=0)
    """
    url = serve(text, env=runtime).url
    status, _, error = litplex("ps", "--url", url)
    assert status == 1
    assert f"`{url}` is the address of the endpoints" in error
    assert f"give `--port {url.rsplit(':', 1)[1]}`" in error


def test_a_port_without_keys_is_an_error(run, tmp_path, litplex):
    config = tmp_path / "litplex.toml"
    endpoint = '[[endpoint]]\npath = "/a"\napi = "a:A"\n'

    def errors(options):
        config.write_text(options + endpoint)
        status, _, err = litplex("serve", str(config), env={**os.environ})
        assert status == 2
        return err

    assert "`admin_port` needs keys: give `admin_keys`" in errors("admin_port = 9000\n")
    assert "`admin_keys_file` needs `admin_port`, such as 9000, or `admin_dashboard`" in errors(
        'admin_keys_file = "keys"\n'
    )
    unset = 'admin_port = 9000\nadmin_keys = { ann = "env:NO_SUCH_KEY" }\n'
    assert "`admin_keys`: " in (said := errors(unset)) and "NO_SUCH_KEY" in said
    missing = 'admin_port = 9000\nadmin_keys_file = "keys"\n'
    assert "`admin_keys_file`: " in errors(missing)
