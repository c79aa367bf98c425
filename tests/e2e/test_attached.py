"""`wrap_litserve_start`: test clients of `server.app`, without a port."""

import asyncio
import threading
import time

import httpx
import pytest
from conftest import wait_until
from fastapi.testclient import TestClient
from litplex import compat as ls
from litplex.compat.utils import wrap_litserve_start


class Squares(ls.LitAPI):
    def setup(self, device):
        time.sleep(0.2)

    def predict(self, x):
        if x["input"] == "die":
            raise SystemExit
        return {"output": x["input"] ** 2}


class Guarded(Squares):
    def authorize(self, token: str):
        if token != "right":
            raise ls.HTTPException(401, "Bad token")


class Broken(ls.LitAPI):
    def setup(self, device):
        raise OSError("no weights")

    def predict(self, x):
        return x


def test_a_request_waits_for_the_first_worker():
    with wrap_litserve_start(ls.LitServer(Squares())) as server:
        client = TestClient(server.app)
        assert client.get("/health").status_code == 503
        assert client.post("/predict", json={"input": 3}).json() == {"output": 9}
        assert client.get("/health").text == "ok"


def test_many_requests_of_an_async_client():
    async def ask(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            calls = (client.post("/predict", json={"input": n}) for n in range(20))
            return [answer.json()["output"] for answer in await asyncio.gather(*calls)]

    with wrap_litserve_start(ls.LitServer(Squares())) as server:
        assert asyncio.run(ask(server.app)) == [n * n for n in range(20)]


def test_middlewares_and_routes_of_the_program_run():
    with wrap_litserve_start(ls.LitServer(Guarded())) as server:
        server.app.add_api_route("/own", lambda: "mine")
        client = TestClient(server.app)
        assert client.get("/own").json() == "mine"
        assert client.post("/predict?token=wrong", json={"input": 3}).status_code == 401
        assert client.post("/predict?token=right", json={"input": 3}).json() == {"output": 9}


class Large(ls.LitAPI):
    def predict(self, x):
        return "0" * 100_000


def test_large_answers_are_compressed():
    with wrap_litserve_start(ls.LitServer(Large())) as server:
        client = TestClient(server.app)
        for encoding in ("gzip", ""):
            answer = client.post("/predict", json={}, headers={"Accept-Encoding": encoding})
            assert answer.headers.get("Content-Encoding", "") == encoding
            assert answer.json() == "0" * 100_000


class Chat(ls.LitAPI):
    def predict(self, request):
        yield request.messages[0].content if isinstance(request.messages[0].content, str) else "?"


def ask(client, content, **more):
    body = {"model": "m", "messages": [{"role": "user", "content": content}], **more}
    return client.post("/v1/chat/completions", json=body)


def test_chats_take_and_refuse_what_litserve_does():
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": "true"}}
    with wrap_litserve_start(ls.LitServer(Chat(spec=ls.OpenAISpec()))) as server:
        client = TestClient(server.app)
        assert client.get("/").text == "litserve running"
        assert ask(client, "hi", reasoning_effort="random").status_code == 422
        answer = ask(client, "hi", response_format=form)
        assert answer.json()["choices"][0]["message"]["content"] == "hi"
        part = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "flac"}}
        refused = ask(client, [part])
        assert refused.status_code == 422
        assert "expected one of `wav`, `mp3`, got `flac`" in refused.json()["detail"]


def test_models_that_cannot_be_pickled_are_refused():
    api = Squares()
    api.lock = threading.Lock()  # type: ignore[attr-defined]
    with (
        pytest.raises(ValueError, match=r"cannot be pickled|`lock`"),
        wrap_litserve_start(ls.LitServer(api)),
    ):
        pass


def test_nothing_answers_afterwards():
    server = ls.LitServer(Squares())
    with wrap_litserve_start(server):
        pass
    with pytest.raises(RuntimeError, match="wrap_litserve_start"):
        TestClient(server.app).post("/predict", json={"input": 3})


def test_a_model_that_fails_is_seen(capfd):
    said = []

    def is_said():
        said.append(capfd.readouterr().err)
        return "no weights" in "".join(said)

    # It waits for the first worker, and is told that there will be none before the server ends.
    with wrap_litserve_start(ls.LitServer(Broken())) as server:
        answer = TestClient(server.app).post("/predict", json={})
        assert answer.status_code == 503
        assert "its model cannot be loaded" in answer.json()["detail"]
        wait_until(is_said)


class Told(ls.Callback):
    def __init__(self):
        self.seen = []

    def on_server_start(self, litserver):
        self.seen.append("start")

    def on_request(self, active_requests, litserver):
        self.seen.append(f"request {active_requests} {litserver.active_requests}")

    def on_response(self, litserver):
        self.seen.append("response")

    def on_server_end(self, litserver):
        self.seen.append("end")


def test_callbacks_get_events():
    callback = Told()
    with wrap_litserve_start(ls.LitServer(Squares(), callbacks=callback)) as server:
        assert TestClient(server.app).post("/predict", json={"input": 3}).json() == {"output": 9}
    assert callback.seen == ["start", "request 1 1", "response", "end"]


def test_the_key_that_a_program_sets_is_asked_for(monkeypatch):
    monkeypatch.setattr(ls.server, "LIT_SERVER_API_KEY", "abcd")
    with wrap_litserve_start(ls.LitServer(Squares())) as server:
        client = TestClient(server.app)
        assert client.post("/predict", json={"input": 3}).status_code == 401
        right = client.post("/predict", json={"input": 3}, headers={"X-API-Key": "abcd"})
        assert right.json() == {"output": 9}
