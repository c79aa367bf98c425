"""Callbacks get the events of requests in the app host, and the program's key is checked."""

import concurrent.futures
import functools

import pytest
from conftest import wait_until

pytest.importorskip("fastapi")

EVENTS = """
    import asyncio, os
    from fastapi import Header, HTTPException
    from litplex.compat import Callback

    class Said(Callback):
        def __init__(self, name="only"):
            self.name = name

        def say(self, text):
            with open("said", "a") as file:
                file.write(f"{self.name} {text};")

        def on_server_start(self, litserver):
            self.seen = 0
            self.say("start")

        def on_server_end(self, litserver):
            self.say("end")

        def on_request(self, active_requests, litserver):
            self.seen += 1
            self.say(f"request {self.seen} {active_requests} {litserver.active_requests}")

        def on_response(self, litserver):
            self.say(f"response {type(litserver).__name__}")

    class Echo(ls.LitAPI):
        def predict(self, x):
            if x == "wrong":
                raise ls.HTTPException(418)
            return x

    class Steps(ls.LitAPI):
        async def predict(self, count):
            for step in range(count):
                yield step

    class Chat(ls.LitAPI):
        def predict(self, request):
            yield "a"
"""


@pytest.fixture
def told(tmp_path):
    """Returns the output of callbacks since the last call."""

    def take():
        said = tmp_path / "said"
        text = said.read_text() if said.exists() else ""
        said.unlink(missing_ok=True)
        return text

    return take


def test_callbacks_get_events_of_requests(serve, told):
    server = serve(
        EVENTS
        + """
    apis = [Echo(), Steps(api_path="/steps", stream=True), Chat(spec=ls.OpenAISpec())]
    ls.LitServer(apis, callbacks=Said()).run(port=0)
    """
    )
    assert told() == "only start;"
    assert server.client.get("/health").text == "ok"
    assert server.post("/nothing", json=1).status_code == 404
    assert told() == ""
    # They have been told when the client has its answer.
    assert server.post("/predict", json=1).json() == 1
    assert told() == "only request 1 1 1;only response LitServer;"
    assert server.post("/predict", json="wrong").status_code == 418
    assert told() == "only request 2 1 1;"
    assert server.post("/steps", json=2).text == "0\n1\n"
    assert told() == "only request 3 1 1;only response LitServer;"
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    for number, stream in ((4, False), (5, True)):
        answer = server.post("/v1/chat/completions", json={**chat, "stream": stream})
        assert answer.status_code == 200
        assert told() == f"only request {number} 1 1;only response LitServer;"
    server.stop()
    assert told() == "only end;"


def test_requests_that_are_under_way_are_counted(serve, told, tmp_path):
    server = serve(
        EVENTS
        + """
    class Asks(ls.LitAPI):
        def authorize(self, x_who: str = Header("")):
            if x_who != "me":
                raise HTTPException(403)

        async def predict(self, x, context):
            while not os.path.exists("gate"):
                await asyncio.sleep(0.01)
            return x

    class Broken(Callback):
        def on_request(self, **_):
            raise ValueError("broken callback")

    one = ls.LitServer([Asks(api_path="/asks"), Echo()], callbacks=[Broken(), Said()])
    two = ls.LitServer(Echo(), "/two", callbacks=Said("two"))
    one.app.get("/active")(lambda: [one.active_requests, two.active_requests])
    ls.run_servers(one, two, port=0)
    """
    )
    told()
    assert server.post("/asks", json=1).status_code == 403
    assert server.client.get("/active").json() == [1, 0]
    assert told() == ""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        post = functools.partial(server.post, "/asks", headers={"X-Who": "me"})
        waiting = [pool.submit(post, json="a")]
        # Before anything else is counted.
        wait_until((tmp_path / "said").exists)
        waiting.append(pool.submit(post, json="b"))
        wait_until(lambda: server.client.get("/active").json() == [3, 0])
        # A request counts before its callbacks are called.
        wait_until(lambda: (tmp_path / "said").read_text().count("only request") == 2)
        assert server.post("/two", json=1).json() == 1
        (tmp_path / "gate").touch()
        assert [answer.result().json() for answer in waiting] == ["a", "b"]
    said = told()
    assert "two request 1 1 1;two response LitServer;" in said
    assert (said.count("only request"), said.count("only response")) == (2, 2)
    assert "only request 1 1 1;" in said
    assert server.client.get("/active").json() == [1, 0]
    server.wait_for_line("ValueError: broken callback")


def test_callbacks_get_the_event_of_a_stream_whose_client_leaves(serve, told, tmp_path):
    server = serve(EVENTS + "    ls.LitServer(Steps(stream=True), callbacks=Said()).run(port=0)")
    with server.client.stream("POST", "/predict", json=10**9) as answer:
        next(answer.iter_lines())
    said = tmp_path / "said"
    wait_until(lambda: said.read_text().endswith("request 1 1 1;only response LitServer;"))


KEY = """
    import litplex.compat as litserve

    class Echo(litserve.LitAPI):
        def predict(self, x):
            return x

    litserve.server.LIT_SERVER_API_KEY = "abcd"
    server = litserve.LitServer(Echo())
"""


@pytest.mark.parametrize("route", ["", '    server.app.get("/custom")(lambda: 1)\n'])
def test_the_key_that_a_program_sets_is_asked_for(serve, route):
    server = serve(KEY + route + "    server.run(port=0)", env={"LIT_SERVER_API_KEY": "other"})
    assert server.app_hosts() if route else not server.app_hosts()
    for key, status in ((None, 401), ("other", 401), ("abcd", 200)):
        headers = {"X-API-Key": key} if key else {}
        assert server.post("/predict", json=1, headers=headers).status_code == status
        assert server.client.get("/health", headers=headers).status_code == status
