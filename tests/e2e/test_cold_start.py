"""Clients that ask to be told while they wait for a worker: `X-Litplex-Wait: cold-start`."""

import json
import re

import httpx
import pytest
from conftest import PATIENCE, wait_until

MODELS = """
    import os, time

    class Slow(ls.LitAPI):
        def setup(self, device):
            while not os.path.exists("gate"):
                time.sleep(0.01)

        def predict(self, x):
            return {"x": x}

    class Streams(Slow):
        def predict(self, x):
            yield from range(x)

    class Fails(ls.LitAPI):
        def setup(self, device):
            raise ValueError("no weights")

        def predict(self, x):
            return x

    class Image(Slow):
        def predict(self, x):
            return ls.Response(bytes(range(256)), media_type="image/png")

    class Chat(Slow):
        def predict(self, messages):
            yield "one "
            yield "two"

    ASLEEP = dict(min_workers=0, max_workers=1, cwd=os.environ['GATE'])

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Slow(), path="/slow", **ASLEEP),
            ls.LitServer(Streams(stream=True), path="/streams", **ASLEEP),
            ls.LitServer(Fails(), path="/fails", **ASLEEP),
            ls.LitServer(Image(), path="/image", **ASLEEP),
            ls.LitServer(Chat(spec=ls.OpenAISpec()), **ASLEEP),
            port=0,
        )
"""

WAIT = {"X-Litplex-Wait": "cold-start"}


@pytest.fixture
def server(serve, tmp_path):
    return serve(MODELS, env={"GATE": str(tmp_path)})


@pytest.fixture
def ask(server, tmp_path):
    """Returns a function that sends a request, and lets the model be loaded once it is told of the
    load. It returns the response and its text."""

    def post(path, body):
        with server.client.stream("POST", path, json=body, headers=WAIT) as answer:
            lines = []
            for line in answer.iter_lines():
                lines.append(line)
                (tmp_path / "gate").touch()
            return answer, "\n".join(lines)

    return post


def comments(text):
    return [json.loads(told) for told in re.findall(r"^: cold-start (.*)$", text, re.MULTILINE)]


def events(text):
    """Returns the kind and the data of each event."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            found.append((fields.get("event"), fields["data"]))
    return found


def test_a_client_is_told_of_the_load_before_its_answer(server, ask):
    answer, text = ask("/slow", 1)
    assert answer.status_code == 200
    assert answer.headers["x-litplex-wait"] == "cold-start"
    assert answer.headers["content-type"] == "text/event-stream"
    told = comments(text)
    assert told[0] == {"endpoint": "/slow", "state": "loading", "waited": 0.0, "expected": None}
    assert [each["waited"] for each in told] == sorted(each["waited"] for each in told)
    assert events(text) == [(None, '{"x":1}')]
    # A worker is there: the answer is as without the header.
    again = server.post("/slow", json=2, headers=WAIT)
    assert (again.json(), "x-litplex-wait" in again.headers) == ({"x": 2}, False)


def test_a_client_that_leaves_waits_no_more(server):
    with server.client.stream("POST", "/slow", json=1, headers=WAIT) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith(": cold-start ")
        assert '\nlitplex_inflight_requests{endpoint="/slow"} 1' in metrics(server)
    wait_until(lambda: '\nlitplex_inflight_requests{endpoint="/slow"} 0' in metrics(server))


def metrics(server):
    return server.client.get("/metrics").text


def test_streams_are_events(ask):
    _, text = ask("/streams", 3)
    assert comments(text)
    assert events(text) == [(None, "0"), (None, "1"), (None, "2")]


def test_chats_are_events(ask):
    body = {"model": "Chat", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    _, text = ask("/v1/chat/completions", body)
    assert comments(text)
    data = [data for _, data in events(text)]
    assert data[-1] == "[DONE]"
    texts = [json.loads(each)["choices"][0]["delta"].get("content") for each in data[:-1]]
    assert "".join(filter(None, texts)) == "one two"


def test_an_error_is_an_event(server):
    answer = server.post("/fails", json=1, headers=WAIT)
    assert answer.status_code == 200
    ((kind, data),) = events(answer.text)
    assert kind == "error"
    assert "no worker of this endpoint is running" in json.loads(data)["detail"]


def test_what_no_event_can_carry_is_an_error(ask):
    _, text = ask("/image", 1)
    ((kind, data),) = events(text)
    assert (kind, "image/png" in json.loads(data)["detail"]) == ("error", True)


def test_a_wrong_value_is_refused(server):
    answer = httpx.post(
        f"{server.url}/slow", json=1, headers={"X-Litplex-Wait": "yes"}, timeout=PATIENCE
    )
    assert answer.status_code == 400
    assert answer.json()["detail"] == '`X-Litplex-Wait` must be "cold-start", not "yes"'
