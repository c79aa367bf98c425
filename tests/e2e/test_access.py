"""Access by keys: every route with every kind of key, limits, and keys that change."""

import hashlib
import json
import re
import socket
import sys
import threading
import time

import pytest
from conftest import wait_until

PROGRAM = """
    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    class Chat(Echo):
        def setup(self, device):
            pass

        def predict(self, messages):
            yield "hello"

    own = {{"api_keys": {{"olga": "env:OLGA"}}, "api_keys_file": "own.keys"}}
    ls.run_servers(
        ls.LitServer(Echo(), path="/common"),
        ls.LitServer(Echo(mcp=ls.MCP(name="echo", description="Echoes")), path="/own", **own),
        ls.LitServer(Chat(spec=ls.OpenAISpec())),
        port=0,
        api_keys={{"ann": "env:ANN", "bob": "{bob}"}},
        shutdown_path="/stop",
    )
"""
ENV = {"ANN": "key of ann", "OLGA": "key of olga", "LIT_SHUTDOWN_API_KEY": "key that stops"}


def hashed(key):
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


@pytest.fixture
def guarded(serve, tmp_path):
    keys = tmp_path / "own.keys"
    keys.write_text(f"# ours\noscar {hashed('key of oscar')}\n")
    keys.chmod(0o666)
    program = PROGRAM.format(bob=hashed("key of bob"))
    return serve(program, env=ENV)


@pytest.fixture
def routes(guarded, litplex, tmp_path):
    """The routes that `litplex check --json` prints."""
    command = ["check", tmp_path / "server.py", "--json", "--python", sys.executable]
    status, text, _ = litplex(*command, env=ENV)
    assert status == 0
    return json.loads(text)["routes"]


HOLDERS = {"ann": "key of ann", "bob": "key of bob", "olga": "key of olga", "oscar": "key of oscar"}


def test_the_table_that_check_prints_is_the_one_that_the_server_answers_by(guarded, routes):
    served = guarded.client.get("/info", headers={"X-API-Key": HOLDERS["ann"]}).json()["routes"]
    in_order = sorted(routes, key=lambda row: (row["path"], row["methods"]))
    for row in in_order:
        del row["callers"]
    assert in_order == sorted(served, key=lambda row: (row["path"], row["methods"]))


def test_every_route_admits_exactly_the_callers_in_its_row(guarded, routes):
    paths = {row["path"] for row in routes}
    assert paths >= {"/common", "/own", "/v1/chat/completions", "/v1/models", "/mcp", "/mcp/", "/"}
    calls = [
        (method, row["path"].replace("*", "Chat"), row["callers"])
        for row in routes
        for method in row["methods"]
        if row["access"] != "shutdown"
    ]
    for method, path, callers in calls:
        is_public = callers == "public"
        named = callers.replace("keys in", "oscar,")
        for holder, key in HOLDERS.items():
            for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
                answer = guarded.client.request(method, path, headers=headers, json=1)
                is_in = is_public or holder in named
                assert (answer.status_code != 401) == is_in, (method, path, holder, answer.text)
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer key of an"}):
            answer = guarded.client.request(method, path, headers=headers, json=1)
            assert (answer.status_code != 401) == is_public, (path, headers)
            assert is_public or answer.headers["www-authenticate"] == "APIKey"


def test_a_path_names_its_methods_where_it_lacks_one(guarded, routes):
    allowed: dict[str, list[str]] = {}
    for row in routes:
        path = row["path"].replace("*", "Chat")
        allowed.setdefault(path, []).extend(row["methods"])
    key = {"X-API-Key": HOLDERS["ann"]}
    for path, methods in allowed.items():
        answer = guarded.client.request("PATCH", path, headers=key)
        if answer.status_code == 401:  # The endpoint that has its own keys.
            assert path == "/own"
            continue
        assert answer.status_code == 405, path
        assert answer.headers["allow"] == ", ".join(methods)


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/v1/models", "/docs", "/livez"])
def test_no_endpoint_takes_the_path_of_a_built_in_route(path, litplex, tmp_path):
    (tmp_path / "litplex.toml").write_text(f'[[endpoint]]\npath = "{path}"\napi = "a:A"\n')
    status, _, error = litplex("check", tmp_path / "litplex.toml")
    assert status == 2
    assert f"`{path}`: this path is already in use by a built-in route" in error


def test_the_description_names_the_endpoints_that_need_a_key(serve):
    server = serve(LIMITED, env={"ANN": "a", "BOB": "b"})
    described = server.client.get("/openapi.json").json()
    keyed = {path for path, of in described["paths"].items() if "security" in of["post"]}
    assert keyed == {"/keys"}
    assert "401" in described["paths"]["/keys"]["post"]["responses"]
    schemes = described["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {
        "key": "apiKey",
        "bearer": "http",
    }


def test_only_the_key_that_stops_stops(guarded):
    for key in (*HOLDERS.values(), "wrong"):
        refused = guarded.post("/stop", headers={"Authorization": f"Bearer {key}"})
        assert refused.status_code == 401
    assert guarded.post("/stop", headers={"Authorization": "Bearer key that stops"}).is_success
    assert guarded.wait() == 0


def test_keys_of_a_file_change_while_the_server_runs(guarded, tmp_path):
    def status(key):
        return guarded.post("/own", json=1, headers={"X-API-Key": key}).status_code

    assert (status("key of oscar"), status("new")) == (200, 401)
    (tmp_path / "own.keys").write_text(f"oscar {hashed('new')}\n")
    wait_until(lambda: status("new") == 200)
    assert (status("key of oscar"), status("key of olga")) == (401, 200)
    (tmp_path / "own.keys").write_text("oscar new\n")
    guarded.wait_for_line("the keys stay as they were")
    assert status("new") == 200


def test_a_file_without_keys_admits_no_caller_and_warns(serve, tmp_path):
    (tmp_path / "keys").write_text("# none yet\n")
    server = serve("""
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        ls.LitServer(Echo(), path="/echo").run(port=0, api_keys_file="keys")
    """)
    assert server.post("/echo", json=1).status_code == 401
    assert server.post("/echo", json=1, headers={"X-API-Key": ""}).status_code == 401
    assert re.search("keys has no key.*`litplex key NAME >> .*keys`", server.output)


def test_keys_that_every_user_can_write_are_warned_of(guarded):
    assert re.search("`api_keys_file`: every user can write .*own.keys; `chmod o-w", guarded.output)


def test_a_refusal_keeps_or_closes_the_connection_as_announced(guarded):
    """A body that comes after the refusal must not fail the next request on the connection."""

    def head(body, length, *more):
        lines = ["POST /own HTTP/1.1", "Host: a", f"Content-Length: {length}", *more]
        return "\r\n".join([*lines, "", body]).encode()

    host, port = guarded.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sock.sendall(head("", 1))
        time.sleep(0.2)
        sock.sendall(b"1")
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 401")
        sock.sendall(head("1", 1, "X-API-Key: key of olga"))
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")
        # A body that does not arrive, or that is too long to be read in vain, ends the connection.
        sock.sendall(head("", 1 << 30))
        assert b"connection: close" in sock.recv(1 << 16)


def test_nothing_secret_is_shown(guarded, routes):
    guarded.post("/own", json=1, headers={"X-API-Key": "key of ann"})
    shown = [guarded.output, *map(str, routes)]
    headers = {"X-API-Key": "key of ann"}
    shown += [guarded.client.get(path, headers=headers).text for path in ("/", "/info")]
    for secret in (*ENV.values(), *HOLDERS.values()):
        assert not any(secret in text for text in shown), secret


LIMITED = """
    import time

    class Slow(ls.LitAPI):
        def predict(self, x):
            time.sleep(x)
            return x

    ls.run_servers(
        ls.LitServer(Slow(), path="/rate", rate_limit="60/min", rate_burst=2),
        ls.LitServer(Slow(), path="/flight", max_requests_per_caller=1, workers_per_device=2),
        ls.LitServer(
            Slow(), path="/keys", rate_limit="1/h", api_keys={"ann": "env:ANN", "bob": "env:BOB"}
        ),
        port=0,
    )
"""


def test_a_caller_above_its_rate_reads_when_to_retry(serve):
    server = serve(LIMITED, env={"ANN": "a", "BOB": "b"})
    answers = [server.post("/rate", json=0) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].headers["retry-after"] == "1"
    assert "more than 60 requests in 60s" in answers[2].json()["detail"]
    # Each holder of a key is a caller.
    for key, status in (("a", 200), ("a", 429), ("b", 200), ("c", 401)):
        answer = server.post("/keys", json=0, headers={"X-API-Key": key})
        assert answer.status_code == status, key


def test_a_caller_may_have_so_many_requests_in_flight(serve):
    server = serve(LIMITED, env={"ANN": "a", "BOB": "b"})
    slow = threading.Thread(target=server.post, args=["/flight"], kwargs={"json": 1})
    slow.start()
    time.sleep(0.3)
    refused = server.post("/flight", json=0)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    slow.join()
    assert server.post("/flight", json=0).status_code == 200


@pytest.mark.parametrize(
    ("option", "env", "says"),
    [
        ('api_keys={"ann": "env:NO_KEY"}', {}, "the environment variable NO_KEY is not set"),
        ('api_keys={"ann": "env:ANN"}', {"ANN": " \n"}, "the environment variable ANN is empty"),
        ('api_keys={"ann": "env:ANN"}', {"ANN": "a\nb"}, "ANN has a line break"),
        ('api_keys={"ann": "s3cret"}', {}, "`litplex key` prints such a line"),
        ('api_keys_file="nowhere"', {}, "No such file"),
        ("", {"LIT_SERVER_API_KEY": ""}, "LIT_SERVER_API_KEY is empty"),
        ("", {"LIT_SERVER_API_KEY": "\n"}, "LIT_SERVER_API_KEY is empty"),
    ],
)
def test_keys_that_are_not_there_end_the_start(serve, option, env, says):
    server = serve(
        f"""
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        ls.LitServer(Echo(), {option}).run(port=0)
        """,
        env=env,
        ready=False,
    )
    assert server.wait() != 0
    assert says in server.output


@pytest.mark.parametrize("app", ["", "server.app"])
def test_white_space_around_a_key_is_ignored(serve, app):
    """Files and shells leave a line break there, which no header can carry."""
    program = f"""
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        server = ls.LitServer(Echo())
        own = ls.LitServer(Echo(), path="/own", api_keys={{"olga": "env:OLGA"}})
        {app}
        ls.run_servers(server, own, port=0, shutdown_path="/stop")
    """
    env = {"LIT_SERVER_API_KEY": "s3cret\n", "OLGA": "\tkey of olga \r\n"}
    server = serve(program, env={**env, "LIT_SHUTDOWN_API_KEY": " stop\n"})
    both = {"X-API-Key": "s3cret", "Authorization": "Bearer key of olga"}
    assert server.post("/predict", json=1, headers=both).status_code == 200
    assert server.post("/predict", json=1).status_code == 401
    assert server.client.get("/metrics").status_code == 401
    assert server.client.get("/health", headers=both).status_code == 200
    assert server.post("/own", json=1, headers=both).status_code == 200
    assert server.post("/own", json=1, headers={"X-API-Key": "s3cret"}).status_code == 401
    assert server.post("/stop", headers={"Authorization": "Bearer stop"}).status_code == 200
    assert server.wait() == 0


def test_a_new_key_opens(litplex, serve, tmp_path):
    _, line, said = litplex("key", "ann")
    key = said.splitlines()[-1]
    assert key.startswith("lpx_") and key not in line
    (tmp_path / "keys").write_text(line)
    server = serve(
        """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        ls.LitServer(Echo()).run(port=0, api_keys_file="keys")
        """,
    )
    assert server.post("/predict", json=1).status_code == 401
    assert server.post("/predict", json=1, headers={"X-API-Key": key}).json() == 1


MODELS = """
    class Chat(ls.LitAPI):
        def predict(self, prompt):
            yield "a"

    class Embed(ls.LitAPI):
        def predict(self, text):
            return [1.0]

    ls.run_servers(
        ls.LitServer(Chat(spec=ls.OpenAISpec()), api_keys={{"olga": "env:OLGA"}}),
        ls.LitServer(Embed(spec=ls.OpenAIEmbeddingSpec()), api_keys={{"oscar": "env:OSCAR"}}),
        port=0,
        {keys}
    )
"""


@pytest.mark.parametrize("keys", ["", 'api_keys={"ann": "env:ANN"},'])
def test_a_caller_finds_the_models_that_it_may_call(serve, keys):
    env = {"OLGA": "key of olga", "OSCAR": "key of oscar", "ANN": "key of ann"}
    server = serve(MODELS.format(keys=keys), env=env)

    def models(path="/v1/models", **headers):
        answer = server.client.get(path, headers=headers)
        is_list = answer.status_code == 200 and "data" in answer.json()
        return [m["id"] for m in answer.json()["data"]] if is_list else answer.status_code

    assert models(Authorization="Bearer key of olga") == ["Chat"]
    assert models(Authorization="Bearer key of oscar") == ["Embed"]
    assert models("/v1/models/Chat", Authorization="Bearer key of olga") == 200
    assert models("/v1/models/Embed", Authorization="Bearer key of olga") == 404
    assert models() == 401
    assert models(Authorization="Bearer wrong") == 401
    assert models("/v1/models/Chat") == 401
    if keys:
        assert models(Authorization="Bearer key of ann") == []
        assert models("/info", Authorization="Bearer key of olga") == 401


def test_a_refusal_names_the_headers_that_are_read(guarded):
    detail = guarded.post("/own", json=1).json()["detail"]
    assert "X-API-Key" in detail and "Authorization: Bearer" in detail


OPERATED = """
    from fastapi import Request

    seen = []

    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    async def note(request, call_next):
        seen.append(request.url.path)
        return await call_next(request)

    if __name__ == "__main__":
        server = ls.LitServer(Echo(), path="/echo", api_keys={"eve": "env:CALLER"})
        server.app.middleware("http")(note)

        @server.app.get("/seen")
        def all_seen():
            return seen

        @server.app.get("/dashboard")
        @server.app.get("/dashboard/v1/server")
        def shadowed():
            return "the program"

        server.run(
            port=0,
            admin_dashboard=True,
            admin_keys={"ann": "env:OPERATOR"},
            admin_read_keys={"bob": "env:READER"},
            cors_origins=["https://app.example"],
        )
"""
OPERATORS = {"CALLER": "call", "OPERATOR": "all", "READER": "look"}


def test_the_dashboard_is_for_operators_and_endpoints_are_not(serve, runtime):
    server = serve(OPERATED, env={**runtime, **OPERATORS})
    client = server.client

    def status(method, path, key=None, **headers):
        headers = {**headers, **({"Authorization": f"Bearer {key}"} if key else {})}
        return client.request(method, path, headers=headers).status_code

    server.wait_for_line(f"the dashboard, for holders of `admin_keys`: {server.url}/dashboard")
    pause, resume = (f"/dashboard/v1/endpoints/echo/{verb}" for verb in ("pause", "resume"))
    pause, resume = (path.replace("echo", "%2Fecho") for path in (pause, resume))
    for method, path, wanted in [
        ("GET", "/dashboard", "200 200 200 200 200"),
        ("GET", "/dashboard/app.js", "200 200 200 200 200"),
        ("GET", "/dashboard/", "307 307 307 307 307"),
        ("GET", "/dashboard/v1/server", "401 401 401 200 200"),
        ("GET", "/dashboard/v1/session", "401 401 401 200 200"),
        ("HEAD", "/dashboard/v1/load", "401 401 401 200 200"),
        ("GET", "/dashboard/openapi.json", "401 401 401 200 200"),
        ("GET", "/dashboard/v1/no", "401 401 401 404 404"),
        ("GET", "/dashboard/no.js", "401 401 401 404 404"),
        ("POST", pause, "401 401 401 403 200"),
        ("POST", resume, "401 401 401 403 200"),
        ("PUT", "/dashboard/v1/log-level", "401 401 401 403 400"),
        ("DELETE", "/dashboard/v1/server", "401 401 401 403 405"),
        ("POST", "/dashboard", "401 401 401 403 405"),
        # Other spellings of these paths are no other way to them.
        ("GET", "/dashboard%2Fv1/server", "401 401 401 404 404"),
        ("GET", "/%64ashboard/v1/server", "401 401 401 404 404"),
        ("GET", "/dashboard//v1/server", "401 401 401 404 404"),
        # The admin API is nowhere else.
        ("GET", "/v1/server", "404 404 404 404 404"),
        ("GET", "/v1/session", "404 404 404 404 404"),
        ("POST", "/v1/stop", "404 404 404 404 404"),
        ("GET", "/dashboards", "404 404 404 404 404"),
        # The endpoint is for its callers alone.
        ("POST", "/echo", "401 401 400 401 401"),
        ("GET", "/info", "200 200 200 200 200"),
    ]:
        found = [status(method, path, key) for key in (None, "wrong", "call", "look", "all")]
        assert " ".join(map(str, found)) == wanted, (method, path)
    # Pages of other sites are refused, also with a key, and also those that may call endpoints.
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "https://app.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert status("GET", "/dashboard/v1/server", "all", **headers) == 403, headers
        assert status("POST", pause, "all", **headers) == 403, headers
    assert status("GET", "/dashboard/v1/server", "all", Origin=server.url) == 200
    # The program sees no request of an operator, and so no key.
    assert [path for path in client.get("/seen").json() if "dash" in path] == ["/dashboards"] * 5
    routes = {row["path"]: row for row in client.get("/info").json()["routes"]}
    assert routes["/dashboard/*"]["access"] == "operators"
    told = client.get("/dashboard/v1/server", headers={"X-API-Key": "look"}).json()
    assert told["admin_url"] == f"{server.url}/dashboard"


def test_the_dashboard_on_the_port_of_endpoints_is_off_unless_it_is_asked_for(serve):
    text = OPERATED.replace("admin_dashboard=True", "admin_port=0")
    server = serve(text, env=OPERATORS)
    # They are paths of the program.
    assert server.client.get("/dashboard/v1/server").json() == "the program"
    assert server.client.get("/dashboard/app.js").status_code == 404


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ('path = "/dashboard"', "`/dashboard`: this path is already in use by a built-in route"),
        ('path = "/dashboard/a"', "`/dashboard/a`: paths below `/dashboard` belong to"),
        ('path = "/dashboards"', None),
    ],
)
def test_no_endpoint_takes_a_path_of_the_dashboard(options, says, litplex, tmp_path, script):
    (tmp_path / "keys").write_text(f"ann {hashed('all')}\n")
    script("class A(ls.LitAPI):\n    def predict(self, x):\n        return x\n", name="a.py")
    config = tmp_path / "litplex.toml"
    server = "admin_dashboard = true\nadmin_keys_file = 'keys'\ninfo_path = '/dashboard/info'\n"
    endpoint = f'[[endpoint]]\n{options}\napi = "a.py:A"\n'
    config.write_text(server + endpoint)
    status, _, error = litplex("check", config)
    assert status == 2
    assert "`info_path` is a path of `admin_dashboard`; choose another" in error
    assert says is None or says in error
    config.write_text(server.replace("/dashboard/info", "/info") + endpoint)
    status, out, error = litplex("check", config, "--python", sys.executable)
    assert (status == 0) == (says is None), error
    assert says is not None or "/dashboard/*" in out
    assert says is not None or "keys in" in out
    config.write_text("admin_dashboard = true\n" + endpoint)
    assert "`admin_dashboard` needs keys: give `admin_keys`" in litplex("check", config)[2]
