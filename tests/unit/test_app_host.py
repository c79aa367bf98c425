"""The manifest of the app host: which programs need one, and errors in it."""

import importlib.util

import litplex as ls
import pytest
from litplex import _handover
from litplex._apphost import _manifest, _root
from litplex._apphost._app import add_server_routes
from litplex.compat import LitServer
from litplex.compat.callbacks import Callback, NoopCallback
from litplex.compat.callbacks.defaults.metric_callback import RequestTracker


class Open(ls.LitAPI):
    def predict(self, x):
        return x


class Guarded(Open):
    def authorize(self):
        pass


class Chat(ls.LitAPI):
    def predict(self, x):
        yield "a"


class Middleware:
    pass


def test_only_programs_that_need_an_app_host_have_one(monkeypatch):
    monkeypatch.setattr(_handover, "script", lambda: {"file": "server.py"})
    assert _manifest.manifest_of([ls.LitServer(Open())]) is None
    order = _manifest.manifest_of([ls.LitServer(Open(), "/a"), ls.LitServer(Guarded(), "/b")])
    assert order is not None
    assert order["guarded"] == [("/b", "Guarded")]
    assert _manifest.manifest_of([ls.LitServer(Open(), middlewares=[Middleware])]) is not None
    server = ls.LitServer(Open())
    server.app.get("/custom")(lambda: 1)
    assert _manifest.manifest_of([server]) is not None


def test_callbacks_of_requests_need_one(monkeypatch):
    class Told(Callback):
        def on_response(self, litserver):
            pass

    class Passed(Callback):
        def on_before_predict(self, lit_api):
            pass

    monkeypatch.setattr(_handover, "script", lambda: {"file": "server.py"})
    server = ls.LitServer(Open(), callbacks=[Passed(), NoopCallback()])
    assert _manifest.manifest_of([server]) is None
    assert server.active_requests is None
    server = ls.LitServer(Open(), callbacks=[Passed(), Told()])
    assert _manifest.events_of_requests(server) == ["on_response"]
    assert _manifest.manifest_of([server]) is not None
    assert _manifest.manifest_of([ls.LitServer(Open(), callbacks=RequestTracker())]) is not None
    monkeypatch.setattr(_handover, "script", lambda: {"file": None})
    with pytest.raises(ValueError, match="`on_response` of a callback needs a process that runs"):
        _manifest.manifest_of([server])


def test_missing_packages_are_named(monkeypatch):
    server = ls.LitServer(Guarded())
    needs = r"`authorize` needs .*, and uvicorn cannot .*; `pip install \"litplex\[app\]\"`"
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: name == "fastapi" or None)
        with pytest.raises(ValueError, match=needs):
            _manifest.manifest_of([server])
        with pytest.raises(ValueError, match=r"`server\.app` needs fastapi and uvicorn"):
            server.app  # noqa: B018
    monkeypatch.setattr(_handover, "script", lambda: {"file": None})
    with pytest.raises(ValueError, match="only a file can be run again"):
        _manifest.manifest_of([server])


@pytest.mark.parametrize("wrong", [Middleware, [("x", {})], [(Middleware, 1)], [1]])
def test_invalid_middlewares_are_refused(wrong):
    with pytest.raises(ValueError, match="middlewares must be a list of tuples"):
        ls.LitServer(Open(), middlewares=wrong)


def test_a_guard_that_cannot_be_called_is_refused():
    class Odd(Open):
        authorize = "yes"

    with pytest.raises(ValueError, match="`authorize` must be a function, not 'yes'"):
        ls.LitServer(Odd())


def test_routes_of_the_program_may_have_the_guard_of_an_api(monkeypatch):
    guarded, free = Guarded(api_path="/a"), Open(api_path="/b")
    server = LitServer([guarded, free])
    assert server.lit_api == [guarded, free]
    assert server.setup_auth() == guarded.authorize
    assert server.setup_auth(free)() is None
    monkeypatch.setenv("LIT_SERVER_API_KEY", "key")
    assert server.setup_auth(free).__name__ == "check_key"


def row(path, access="server", condition="always", yields=False):
    return {
        "path": path,
        "methods": ["GET", "HEAD"],
        "access": access,
        "condition": condition,
        "yields": yields,
    }


TABLE = [
    row("/v1/models", "models", "openai"),
    row("/v1/models/*", "models", "openai"),
    row("/mcp", condition="tool"),
    row("/about"),
    row("/metrics", yields=True),
    row("/alive", "public", yields=True),
    row("/stop", "shutdown"),
]


def paths_with(server, **options):
    server.app.get("/own")(lambda: 1)
    for _ in range(2):  # The second time, the app has them.
        add_server_routes(server, TABLE, **options)
    return [route.path for route in server.app.routes]


def test_built_in_routes_are_those_of_the_table_around_the_routes_of_the_program():
    server = ls.LitServer(Open(), "/a")
    assert paths_with(server) == ["/a", "/mcp", "/about", "/stop", "/own", "/metrics", "/alive"]
    server = ls.LitServer(Open(), "/a")
    own = ["/a", "/mcp", "/about", "/stop", "/own", "/alive"]
    assert paths_with(server, is_last=False) == own
    server = ls.LitServer(Chat(spec=ls.OpenAISpec()))
    models = ["/v1/models", "/v1/models/{rest:path}"]
    assert paths_with(server)[:4] == [*["/v1/chat/completions"] * 2, *models]


def test_the_guard_of_a_built_in_route_is_that_of_its_row():
    api = Guarded()
    server = ls.LitServer(api, "/a")
    paths_with(server)
    guarded = {route.path: getattr(route, "dependencies", []) for route in server.app.routes}
    # No model is a tool.
    assert [path for path, guards in guarded.items() if guards] == ["/a", "/about", "/metrics"]
    assert all(guards[0].dependency == api.authorize for guards in guarded.values() if guards)


def test_routes_of_the_servers_state_bypass_the_app_host_unless_guarded(monkeypatch):
    monkeypatch.setattr(_handover, "script", lambda: {"file": "server.py"})

    def direct(server, **options):
        order = _manifest.manifest_of([server], options)
        assert order is not None
        return order["direct"], order["has_routes"]

    probes = ["/livez", "/readyz"]
    server = ls.LitServer(Open(), middlewares=[Middleware])
    assert direct(server) == ([*probes, "/health", "/metrics"], False)
    renamed = {"livez_path": "/live", "healthcheck_path": "/well", "metrics_path": False}
    assert direct(server, **renamed) == (["/live", "/readyz", "/well"], False)
    # `authorize` of a single API guards them too.
    assert direct(ls.LitServer(Guarded())) == (probes, False)
    assert direct(ls.LitServer([Guarded(api_path="/a"), Open(api_path="/b")])) == (
        [*probes, "/health", "/metrics"],
        False,
    )
    server = ls.LitServer(Open())
    server.app.get("/livez")(lambda: 1)
    server.app.get("/metrics")(lambda: 1)
    assert direct(server) == (["/readyz", "/health"], True)
    # An app that is mounted at the root comes before probes, and after `/health`.
    server = ls.LitServer(Open())
    server.app.mount("/", lambda *_: None)
    assert direct(server) == (["/health"], True)


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        (b"http://127.0.0.1:50000", ("127.0.0.1", 50000)),
        (b"https://[2001:db8::1]:1", ("2001:db8::1", 1)),
        (None, None),
        (b"", None),
        (b"127.0.0.1:50000", None),
        (b"http://127.0.0.1", None),
        (b"http://127.0.0.1:x", None),
        (b"http://:1", None),
        (b"gopher://127.0.0.1:1", None),
        (b"\xff", None),
    ],
)
def test_a_request_of_another_program_is_refused(peer, client):
    scope = {"headers": [(b"a", b"b"), *([(b"x-litplex-peer", peer)] if peer is not None else [])]}
    assert _root._take_introduction(scope) is (client is not None)
    assert scope.get("client") == client
    assert scope["headers"] == [(b"a", b"b")]
