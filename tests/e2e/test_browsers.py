"""Requests that pages of other sites can and cannot send through a browser."""

import pytest

PROGRAM = """
    class Echo(ls.LitAPI):
        def decode_request(self, text: str):
            return text

        def predict(self, x):
            return x

    tool = ls.MCP(description="d", name="t")
    ls.run_servers(
        ls.LitServer(Echo(mcp=tool), path="/open"),
        ls.LitServer(Echo(), path="/keyed", api_keys={{"ann": "env:ANN"}}),
        port=0,
        {options}
    )
"""
EVIL = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
REBOUND = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}
KEY = {"X-API-Key": "key of ann"}
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "t", "arguments": {"text": "hi"}},
}


def status(server, path, *headers, method="POST"):
    given = {"Accept": "application/json, text/event-stream"}
    for each in headers:
        given.update(each)
    body = CALL if path == "/mcp" else "x"
    return server.client.request(method, path, json=body, headers=given).status_code


def test_a_local_server_without_keys_keeps_other_sites_out(serve):
    server = serve(PROGRAM.format(options=""), env={"ANN": "key of ann"})
    own = {"Host": "localhost:8000", "Origin": "http://localhost:8000"}
    for path in ("/open", "/mcp"):
        assert status(server, path) == 200, path
        assert status(server, path, own) == 200, path
        for evil in (EVIL, REBOUND, {"Origin": "null"}, {"Host": "evil.example"}):
            assert status(server, path, evil) == 403, (path, evil)
    for path in ("/info", "/docs", "/health", "/metrics", "/v1/models", "/nothing"):
        assert status(server, path, REBOUND, method="GET") == 403, path
    # A link on a page of another site may be followed.
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert status(server, "/docs", link, {"Sec-Fetch-Dest": "document"}, method="GET") == 200
    assert status(server, "/docs", link, {"Sec-Fetch-Dest": "iframe"}, method="GET") == 403
    # A page has no key, and probes tell it nothing.
    assert status(server, "/keyed", REBOUND, KEY) == 200
    assert status(server, "/livez", REBOUND, method="GET") == 200
    refused = server.post("/open", json="x", headers={"Host": "evil.example"})
    assert "`allowed_hosts`" in refused.json()["detail"]
    refused = server.post("/open", json="x", headers=EVIL)
    assert "`cors_origins`" in refused.json()["detail"]


def test_allowed_requests_are_admitted(serve):
    options = """
        allowed_hosts=["models.example.com", "*.example.org"],
        cors_origins=["https://app.example.net"],
        trusted_proxies=["127.0.0.1"],
    """
    server = serve(PROGRAM.format(options=options), env={"ANN": "key of ann"})
    app = {"Origin": "https://app.example.net", "Sec-Fetch-Site": "cross-site"}
    for path in ("/open", "/mcp"):
        assert status(server, path, app) == 200
        assert status(server, path, {"Host": "models.example.com"}) == 200
        assert status(server, path, {"Host": "a.example.org"}, app) == 200
        assert status(server, path, {"Host": "example.org"}) == 403
        # A proxy that does not pass on the name by which it was asked.
        page = {"Origin": "https://models.example.com"}
        assert status(server, path, page) == 200
        proxied = {"Origin": "https://x.example.com", "X-Forwarded-Host": "x.example.com"}
        assert status(server, path, proxied) == 200
        assert status(server, path, EVIL) == status(server, path, REBOUND) == 403
    assert status(server, "/keyed", {"Host": "evil.example"}, KEY) == 403


def test_a_server_for_others_looks_at_the_origin_of_calls_of_tools_alone(serve):
    server = serve(PROGRAM.format(options='host="0.0.0.0",'), env={"ANN": "key of ann"})
    server.client.base_url = server.url.replace("0.0.0.0", "127.0.0.1")
    assert status(server, "/open", REBOUND) == 200
    assert status(server, "/mcp", REBOUND) == 200, "it is asked under that name"
    assert status(server, "/mcp", EVIL) == 403
    assert status(server, "/mcp") == 200


CORS = """
    from starlette.middleware.cors import CORSMiddleware

    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    cors = (CORSMiddleware, {{
        "allow_origins": ["https://app.example.net"],
        "allow_methods": ["POST"],
        "allow_headers": ["x-api-key"],
    }})
    server = ls.LitServer(Echo(), middlewares=[cors])

    @server.app.options("/own")
    def own():
        return "options"

    server.run(port=0, {options})
"""


@pytest.mark.parametrize("options", ['api_keys={"ann": "env:ANN"}', ""])
def test_a_middleware_answers_what_browsers_ask_before(serve, options):
    pytest.importorskip("fastapi")
    server = serve(CORS.format(options=options), env={"ANN": "key of ann"})
    page = {"Origin": "https://app.example.net"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}

    def ask(method, path="/predict", **headers):
        return server.client.request(method, path, headers={**page, **headers}, json=1)

    preflight = ask("OPTIONS", **asks)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example.net"
    answer = ask("POST", **KEY)
    assert (answer.status_code, answer.json()) == (200, 1)
    assert answer.headers["access-control-allow-origin"] == "https://app.example.net"
    if options:
        # Nothing else passes without a key.
        assert ask("POST").status_code == 401
        assert ask("POST", **asks).status_code == 401
        assert ask("OPTIONS").status_code == 401
        assert ask("OPTIONS", "/own").status_code == 401
        assert server.client.options("/predict", headers=asks).status_code == 401
