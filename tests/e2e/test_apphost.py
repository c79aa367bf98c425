"""Guards, middlewares and routes of a program run in a process of their own."""

import socket
import threading
import time

import httpx
import pytest
from conftest import wait_until

pytest.importorskip("fastapi")

BEARER = """
    from fastapi import Depends, Header, HTTPException
    from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

    class Guarded(ls.LitAPI):
        def predict(self, x):
            return x

        def authorize(self, auth: HTTPAuthorizationCredentials = Depends(HTTPBearer())):
            if auth.credentials != "right":
                raise HTTPException(status_code=401, detail="Bad token")

    class Awaited(ls.LitAPI):
        def predict(self, x):
            return x

        async def authorize(self, x_token: str = Header()):
            if x_token != "right":
                raise HTTPException(status_code=403, detail="Bad token")

    class Open(ls.LitAPI):
        def predict(self, x):
            return x
"""


OWN = """
    class Guarded(ls.LitAPI):
        def predict(self, x):
            return x

        def authorize(self):
            raise ls.HTTPException(418, "teapot", {"X-Why": "tea"})

    ls.LitServer(Guarded()).run(port=0)
"""


def test_a_guard_may_raise_what_hooks_raise(serve):
    refused = serve(OWN).post("/predict", json=1)
    assert (refused.status_code, refused.json()) == (418, {"detail": "teapot"})
    assert refused.headers["x-why"] == "tea"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_authorize_decides_which_callers_may_use_an_endpoint(serve):
    server = serve(BEARER + "    ls.run_servers(ls.LitServer(Guarded()), port=0)")
    refused = server.post("/predict", json=1)
    assert (refused.status_code, refused.json()) == (401, {"detail": "Not authenticated"})
    refused = server.post("/predict", json=1, headers=bearer("wrong"))
    assert (refused.status_code, refused.json()) == (401, {"detail": "Bad token"})
    answer = server.post("/predict", json=1, headers=bearer("right"))
    assert (answer.status_code, answer.json()) == (200, 1)
    assert server.client.get("/health").status_code == 401
    assert server.client.get("/health", headers=bearer("right")).text == "ok"
    # No spelling of the path gets past the guard.
    for path in ("/%70redict", "/predict/", "//predict", "/predict?x=1", "/PREDICT"):
        assert server.post(path, json=1).status_code in (401, 404, 405, 307), path


def test_each_api_of_a_list_has_its_own_guard(serve):
    server = serve(
        BEARER
        + """
    apis = [Guarded(api_path="/bearer"), Awaited(api_path="/header"), Open(api_path="/open")]
    ls.LitServer(apis).run(port=0)
    """,
        env={"LIT_SERVER_API_KEY": "key"},
    )
    right = {"/bearer": bearer("right"), "/header": {"X-Token": "right"}}
    right["/open"] = {"X-API-Key": "key"}
    expected = {"/bearer": {"/bearer"}, "/header": {"/header"}, "/open": {"/open"}}
    for path in right:
        opens = {
            name
            for name, headers in right.items()
            if server.post(path, json=1, headers=headers).status_code == 200
        }
        assert opens == expected[path]
    assert server.post("/header", json=1).status_code == 422
    assert server.post("/header", json=1, headers={"X-Token": "x"}).status_code == 403
    assert server.post("/open", json=1, headers={"X-API-Key": "x"}).status_code == 401
    assert server.client.get("/health").status_code == 401
    assert server.client.get("/health", headers=right["/open"]).status_code == 200


def test_a_named_api_with_a_guard_is_not_served(serve, script):
    script(BEARER, "guarded.py")
    server = serve(
        """
        named = ls.LitServer("guarded.py:Guarded", "/named")
        named.app.get("/custom")(lambda: 1)
        named.run(port=0)
        """,
        ready=False,
    )
    assert server.wait() != 0
    assert "`authorize` is not called for an API that is given by its name" in server.output


APP = """
    import time
    from fastapi import FastAPI, Request
    from starlette.middleware.base import BaseHTTPMiddleware

    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    class Named(BaseHTTPMiddleware):
        def __init__(self, app, name="plain"):
            super().__init__(app)
            self.name = name

        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers.append("x-passed", self.name)
            return response

    server = ls.LitServer(Echo(), middlewares=[Named, (Named, {"name": "given"})])

    @server.app.middleware("http")
    async def time_it(request: Request, call_next):
        begin = time.time()
        response = await call_next(request)
        response.headers["x-time"] = str(time.time() - begin)
        return response

    @server.app.get("/custom")
    def custom(request: Request, q: int = 0):
        return {"q": q, "client": request.client.host, "headers": dict(request.headers)}

    @server.app.post("/bytes")
    async def count(request: Request):
        return len(await request.body())

    other = FastAPI()

    @other.get("/there")
    def there():
        return "mounted"

    server.app.mount("/sub", other)

    if __name__ == "__main__":
        server.run(port=0)
"""


def test_middlewares_and_routes_of_the_program(serve):
    server = serve(APP)
    answer = server.post("/predict", json={"a": 1}, headers={"X-Mine": "1"})
    assert answer.json() == {"a": 1}
    assert answer.headers.get_list("x-passed") == ["plain", "given"]
    assert float(answer.headers["x-time"]) < 30
    custom = server.client.get("/custom", params={"q": 3}, headers={"X-Litplex-Peer": "9.9.9.9:9"})
    assert (custom.json()["q"], custom.json()["client"]) == (3, "127.0.0.1")
    assert "x-litplex-peer" not in custom.json()["headers"]
    assert custom.headers.get_list("x-passed") == ["plain", "given"]
    assert server.client.get("/custom", params={"q": "x"}).status_code == 422
    assert server.client.get("/sub/there").json() == "mounted"
    assert server.client.get("/nothing").status_code == 404
    assert server.client.get("/predict").status_code == 405
    assert server.client.get("/").text.startswith("litplex running")
    assert server.client.get("/info").json()["endpoints"][0]["path"] == "/predict"
    assert len(server.app_hosts()) == 1


def test_large_bodies_pass(serve):
    server = serve(APP)
    text = "x" * 20_000_000
    assert server.post("/predict", json=text).json() == text
    pieces = (b"y" * 100_000 for _ in range(100))
    assert server.post("/bytes", content=pieces).json() == 10_000_000
    large = server.post("/predict", content=b"z" * 70_000_000)
    assert large.status_code == 413


def test_a_body_that_a_middleware_has_read_may_be_too_large(serve):
    server = serve(
        """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        server = ls.LitServer(Echo(), max_body_bytes=1000)

        @server.app.middleware("http")
        async def read(request, call_next):
            await request.body()
            return await call_next(request)

        server.run(port=0)
        """
    )
    for size in (2_000, 300_000, 5_000_000):
        refused = server.post("/predict", json="x" * size)
        assert refused.status_code == 413, refused.text
    assert server.post("/predict", json="x").json() == "x"


def test_chats_pass(serve):
    server = serve(
        BEARER
        + """
    class Chat(ls.LitAPI):
        authorize = Guarded.authorize

        def predict(self, prompt):
            yield from ("a", "b")

    ls.LitServer(Chat(spec=ls.OpenAISpec())).run(port=0)
    """
    )
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    path, right = "/v1/chat/completions", bearer("right")
    assert server.post(path, json=chat).status_code == 401
    answer = server.post(path, json=chat, headers=right)
    assert answer.json()["choices"][0]["message"]["content"] == "ab"
    streamed = server.post(path, json={**chat, "stream": True}, headers=right)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.endswith("data: [DONE]\n\n")
    [model] = server.client.get("/v1/models", headers=right).json()["data"]
    assert server.client.get(f"/v1/models/{model['id']}", headers=right).status_code == 200
    assert server.client.get("/v1/models").status_code == 401
    assert server.client.options(path).status_code == 200


def test_servers_keep_their_middlewares_apart(serve):
    server = serve(
        """
        from starlette.middleware.base import BaseHTTPMiddleware

        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        class Named(BaseHTTPMiddleware):
            def __init__(self, app, name):
                super().__init__(app)
                self.name = name

            async def dispatch(self, request, call_next):
                response = await call_next(request)
                response.headers["x-passed"] = self.name
                return response

        a = ls.LitServer(Echo(), "/a", middlewares=[(Named, {"name": "a"})])
        b = ls.LitServer(Echo(), "/b", middlewares=[(Named, {"name": "b"})])
        b.app.get("/custom")(lambda: "b's")
        ls.run_servers(a, b, ls.LitServer(Echo(), "/c"), port=0)
        """
    )
    passed = {
        path: server.post(path, json=1).headers.get("x-passed") for path in ("/a", "/b", "/c")
    }
    assert passed == {"/a": "a", "/b": "b", "/c": None}
    assert server.client.get("/custom").json() == "b's"
    assert server.client.get("/health").text == "ok"


def test_only_endpoints_with_middlewares_pay_for_them(serve, tmp_path):
    server = serve("""
        import os, time

        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        a = ls.LitServer(Echo(), "/a")

        @a.app.middleware("http")
        async def holds_the_process_up(request, call_next):
            while not os.path.exists("go"):
                time.sleep(0.01)
            return await call_next(request)

        ls.run_servers(a, ls.LitServer(Echo(), "/b"), port=0)
    """)
    held = threading.Thread(target=server.post, args=["/a"], kwargs={"json": 1})
    held.start()
    try:
        assert [server.post("/b", json=number).json() for number in range(3)] == [0, 1, 2]
        assert held.is_alive()
    finally:
        (tmp_path / "go").touch()
        held.join()


def test_another_spelling_of_a_path_does_not_bypass_its_key(serve):
    server = serve(
        """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        front = ls.LitServer(Echo(), path="/front")

        @front.app.middleware("http")
        async def pass_on(request, call_next):
            return await call_next(request)

        own = ls.LitServer(Echo(), path="/own", api_keys={"ann": "env:ANN"})
        ls.run_servers(front, own, port=0)
        """,
        env={"ANN": "secret"},
    )
    assert server.post("/front", json=1).json() == 1
    assert server.post("/own", json=1, headers={"X-API-Key": "secret"}).json() == 1
    for path in ("/own", "/%6fwn", "/%6Fw%6e"):
        assert server.post(path, json=1).status_code in (401, 404), path


def test_the_key_is_asked_for_beside_middlewares(serve):
    program = """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        a = ls.LitServer(Echo(), "/a")
        a.app
        ls.run_servers(a, ls.LitServer(Echo(), "/b"), port=0)
    """
    server = serve(program, env={"LIT_SERVER_API_KEY": "secret"})
    for path in ("/a", "/b"):
        assert server.post(path, json=1).status_code == 401
        assert server.post(path, json=1, headers={"X-API-Key": "secret"}).json() == 1


def test_tools_are_behind_what_guards_their_endpoints(serve):
    server = serve("""
        from fastapi import Header, HTTPException

        class Guarded(ls.LitAPI):
            def authorize(self, x_who: str = Header("")):
                if x_who != "me":
                    raise HTTPException(403, "not you")

            def predict(self, x):
                return x

        class Open(ls.LitAPI):
            def predict(self, x):
                return x

        guarded = Guarded(api_path="/guarded", mcp=ls.MCP("Echoes."))
        ls.LitServer([guarded, Open(api_path="/open", mcp=ls.MCP("Echoes."))]).run(port=0)
    """)
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "guarded", "arguments": {"request": 1}},
    }
    headers = {"Accept": "application/json, text/event-stream"}
    assert server.post("/mcp", json=call, headers=headers).status_code == 403
    answer = server.post("/mcp", json=call, headers={**headers, "X-Who": "me"})
    assert answer.json()["result"]["content"][0]["text"] == "1"
    assert "/guarded" in server.client.get("/openapi.json").json()["paths"]
    style = server.client.get("/docs/swagger-ui.css")
    assert style.headers["content-encoding"] == "gzip"
    assert ".swagger-ui" in style.text


def test_apps_that_a_logger_mounts_are_served(serve):
    server = serve("""
        import os
        from litplex.compat import Logger

        class Counts(Logger):
            def process(self, key, value):
                with open("entries", "a") as file:
                    file.write(f"{key}={value};")

        async def show(scope, receive, send):
            text = open("entries", "rb").read() if os.path.exists("entries") else b""
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": text})

        class Logs(ls.LitAPI):
            def predict(self, x):
                self.log("x", x)
                return x

        logger = Counts()
        logger.mount("/metrics", show)
        ls.LitServer(Logs(), loggers=logger).run(port=0)
    """)
    assert server.post("/predict", json=7).json() == 7
    wait_until(lambda: server.client.get("/metrics/").text == "x=7;")


SEEN = """
    class Open(ls.LitAPI):
        def predict(self, x):
            return x

    from starlette.responses import JSONResponse
    server = ls.LitServer(Open())

    @server.app.middleware("http")
    async def see(request, call_next):
        if request.url.path == "/seen":
            return JSONResponse([request.client.host, request.url.scheme])
        return await call_next(request)

    server.run(port=0)
"""


def test_a_client_cannot_take_its_address_from_the_app(serve):
    server = serve(SEEN)
    for headers in (
        {},
        {"Connection": "x-litplex-peer"},
        {"Connection": "close, X-Litplex-Peer", "X-Litplex-Peer": "https://192.0.2.1:1"},
        {"X-Litplex-Peer": "garbage"},
    ):
        seen = server.client.get("/seen", headers=headers)
        assert (seen.status_code, seen.json()) == (200, ["127.0.0.1", "http"]), headers


def test_a_malformed_body_is_the_client_s_fault(serve):
    server = serve(SEEN)
    host, port = server.url.removeprefix("http://").split(":")
    for path in ("/predict", "/nothing"):
        for wrong in (b"0x1\r\n7\r\n", b"-1\r\n7\r\n", b"1\r\n77\r\n", b"g\r\n"):
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            with socket.create_connection((host, int(port)), timeout=30) as sock:
                sock.sendall(head.encode() + wrong)
                status = sock.recv(1 << 16).split()[1]
            # What needs no body is answered without it.
            assert status in (b"400", b"404"), (path, wrong)
            assert path == "/nothing" or status == b"400", wrong
    assert server.post("/predict", json=1).status_code == 200


def test_clients_that_leave_fill_no_log(serve):
    """Middlewares without a response, or without a body, raise; no client waits for either."""
    server = serve("""
        import time

        class Sleeps(ls.LitAPI):
            def predict(self, seconds):
                time.sleep(seconds)
                return seconds

        passes = ls.LitServer(Sleeps(), path="/passes")
        reads = ls.LitServer(Sleeps(), path="/reads")

        @passes.app.middleware("http")
        async def passing(request, call_next):
            return await call_next(request)

        @reads.app.middleware("http")
        async def reading(request, call_next):
            await request.body()
            return await call_next(request)

        ls.run_servers(passes, reads, port=0)
    """)
    address = httpx.URL(server.url)
    for path in ("/passes", "/reads"):
        for announced, sent in [(9, b""), (100_000, b" " * 50_000), (1, b"1")]:
            head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {announced}\r\n\r\n"
            with socket.create_connection((address.host, address.port), timeout=30) as sock:
                sock.sendall(head.encode() + sent)
                time.sleep(0.1)
        assert server.post(path, json=0).json() == 0
    server.stop()
    assert "Traceback" not in server.output
