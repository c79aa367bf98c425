"""The requests that a server remembers, with their stages."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import wait_until

SERVER = """
    import os
    import time
    from pathlib import Path

    class Double(ls.LitAPI):
        def decode_request(self, request):
            return request["x"]

        def predict(self, x):
            time.sleep(0.02)
            return 2 * x

        def encode_response(self, output):
            return {"y": output}

    class Batched(ls.LitAPI):
        def predict(self, xs):
            time.sleep(0.02)
            return [2 * x for x in xs]

    class Count(ls.LitAPI):
        def predict(self, n):
            for i in range(n):
                time.sleep(0.02)
                yield i

    class Outer(ls.LitAPI):
        double = ls.endpoint("/double")

        def predict(self, x):
            return self.double({"x": x})["y"]

    class Fragile(ls.LitAPI):
        def predict(self, flag):
            if not Path(flag).exists():
                Path(flag).write_text("")
                os.kill(os.getpid(), 9)
            return "alive"

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Double(), path="/double"),
            ls.LitServer(Batched(max_batch_size=3, batch_timeout=1), path="/batched"),
            ls.LitServer(Count(stream=True), path="/count"),
            ls.LitServer(Outer(), path="/outer"),
            ls.LitServer(Fragile(), path="/fragile"),
            port=0,
        )
"""


@pytest.fixture
def ask(litplex):
    """Returns the lines of JSON that the command prints, once the last request has ended."""

    def ask(*arguments):
        status, out, err = litplex(*arguments, "--json")
        assert status == 0, err
        return [json.loads(line) for line in out.splitlines()]

    return ask


def stages(details):
    """Returns the kind and the endpoint of each stage, and of the one around it."""
    waterfall = details["waterfall"]

    def name(stage):
        return " ".join([stage["kind"], *filter(None, [stage.get("endpoint")])])

    around = [None if it["parent"] is None else name(waterfall[it["parent"]]) for it in waterfall]
    return [(name(it), parent) for it, parent in zip(waterfall, around)]


def test_the_stages_of_requests_are_remembered(serve, runtime, ask, litplex, tmp_path):
    server = serve(SERVER, env=runtime)

    def post(path, value, request_id):
        headers = {"X-Request-ID": request_id, "Authorization": "Bearer secret"}
        return server.post(f"{path}?key=secret", json=value, headers=headers)

    def trace(request_id):
        # The client has its last byte before the server remembers the request.
        wait_until(lambda: litplex("trace", request_id)[0] == 0)
        [details] = ask("trace", request_id)
        return details

    assert post("/double", {"x": 1}, "plain").json() == {"y": 2}
    plain = trace("plain")
    assert stages(plain) == [
        ("edge", None),
        ("queue /double", None),
        ("worker /double", None),
        ("decode", "worker /double"),
        ("predict", "worker /double"),
        ("encode", "worker /double"),
        ("response", None),
    ]
    assert (plain["endpoint"], plain["method"], plain["path"]) == ("/double", "POST", "/double")
    assert (plain["status"], plain["outcome"], plain["attempts"]) == (200, "ok", 1)
    assert (plain["generation"], plain["worker"], plain["is_recorded"]) == (1, 0, True)
    assert (plain["bytes_in"], plain["bytes_out"]) == (len('{"x":1}'), len('{"y":2}'))
    assert plain["stages"]["predict"] >= 0.02
    ends = [stage["start"] + stage["duration"] for stage in plain["waterfall"]]
    assert max(ends) <= plain["duration"] + 1e-6
    assert "secret" not in json.dumps(plain)

    with ThreadPoolExecutor() as pool:
        ids = ["one", "two", "three"]
        sent = [pool.submit(post, "/batched", 1, request_id) for request_id in ids]
        assert all(it.result().json() == 2 for it in sent)
    for request_id in ids:
        [worker] = [it for it in trace(request_id)["waterfall"] if it["kind"] == "worker"]
        assert worker["batch"]["size"] == 3
        assert sorted([*worker["batch"]["mates"], request_id]) == sorted(ids)

    assert post("/count", 3, "stream").text.split() == ["0", "1", "2"]
    stream = trace("stream")
    assert [it["kind"] for it in stream["waterfall"]][-1] == "response"
    assert stream["stages"]["response"] >= 0.02
    assert stream["stages"]["response"] < stream["stages"]["worker"]

    assert post("/outer", 4, "outer").json() == 8
    outer = trace("outer")
    assert ("queue /double", "worker /outer") in stages(outer)
    assert ("worker /double", "worker /outer") in stages(outer)
    assert ("predict", "worker /double") in stages(outer)
    assert outer["stages"]["predict"] >= 0.02
    assert outer["attempts"] == 1

    assert post("/double", {"z": 1}, "failed").status_code == 500
    failed = trace("failed")
    assert (failed["status"], failed["outcome"]) == (500, "model_error")

    assert post("/fragile", str(tmp_path / "flag"), "retried").json() == "alive"
    retried = trace("retried")
    kinds = [it["kind"] for it in retried["waterfall"]]
    assert retried["attempts"] == 2
    assert kinds.count("worker") == 2
    assert kinds.count("retry") == 1
    assert retried["stages"]["cold_start"] > 0, "no worker was ready until the next one was"

    status, out, _ = litplex("trace", "outer")
    assert status == 0
    assert out.startswith("POST /outer  200 ok  outer\n")
    assert "worker /double#0" in out
    status, _, err = litplex("trace", "other")
    assert status == 1
    assert "unknown request `other`: the server remembers 8 requests" in err

    # The list: of all, of an endpoint, of a status, and the slowest.
    found = [it["id"] for it in ask("requests")]
    assert found == ["plain", *found[1:4], "stream", "outer", "failed", "retried"]
    assert sorted(found[1:4]) == sorted(ids)
    assert [it["id"] for it in ask("requests", "/double", "-n", "1")] == ["failed"]
    assert [it["id"] for it in ask("requests", "--status", "5xx")] == ["failed"]
    [slowest] = ask("requests", "--slowest", "-n", "1")
    assert slowest["duration"] == max(it["duration"] for it in ask("requests"))
    status, _, err = litplex("requests", "--status", "bad")
    assert status == 1
    assert "invalid `status`: expected a status such as `503`" in err
    status, out, _ = litplex("requests", "/double")
    assert status == 0
    assert "POST /double  500" in out


def test_the_graph_batches_and_options_of_a_server(serve, runtime, ask):
    server = serve(SERVER, env={**runtime, "LIT_SERVER_API_KEY": "secret"})
    headers = {"X-API-Key": "secret"}

    def admin(path):
        [run_dir] = Path(runtime["XDG_RUNTIME_DIR"]).glob("litplex/*/")
        transport = httpx.HTTPTransport(uds=str(run_dir / "admin.sock"))
        with httpx.Client(transport=transport) as client:
            return client.get(f"http://litplex{path}")

    for x in range(4):
        assert server.post("/outer", json=x, headers=headers).json() == 2 * x
    with ThreadPoolExecutor() as pool:
        sent = [pool.submit(server.post, "/batched", json=1, headers=headers) for _ in range(6)]
        assert all(it.result().status_code == 200 for it in sent)

    def called():
        edges = admin("/v1/graph").json()["edges"]
        return [it for it in edges if it["rate"] > 0]

    wait_until(called)
    [edge] = called()
    assert (edge["from"], edge["to"], edge["kind"]) == ("/outer", "/double", "call")
    assert (edge["errors"], edge["steps"]) == (0, [])
    assert edge["p50"] >= 0.01

    batches = admin("/v1/endpoints/%2Fbatched/batches").json()
    assert batches["sizes"]["sum"] == 6
    assert 2 <= sum(batches["sizes"]["counts"]) <= 6
    # The duration of the last batch may be noted after its responses.
    assert 1 <= sum(batches["seconds"]["counts"]) <= sum(batches["sizes"]["counts"])
    assert batches["costs"] is None
    assert admin("/v1/endpoints/none/batches").status_code == 404

    [config] = ask("config")
    [double] = [it for it in config["endpoints"] if it["endpoint"] == "/double"]
    assert {"name": "timeout", "value": "30s", "is_default": True} in double["options"]
    [scope] = config["keys"]["scopes"]
    assert (scope["scope"], scope["holders"]) == ("server", ["LIT_SERVER_API_KEY"])
    assert "secret" not in json.dumps(config)


def test_a_client_that_leaves_is_remembered(serve, runtime, ask):
    server = serve(SERVER, env=runtime)
    with httpx.stream("POST", f"{server.url}/count", json=100) as stream:
        next(stream.iter_raw())
    wait_until(lambda: ask("requests"))
    [left] = ask("requests")
    # Without an `X-Request-ID` a request has a number.
    assert (left["id"], left["status"], left["outcome"]) == ("r1", 499, "cancelled")
    assert left["bytes_out"] > 0


def test_the_memory_of_requests_can_be_turned_off(serve, runtime, litplex):
    program = SERVER.replace("port=0,", "port=0, recent_requests=0,")
    server = serve(program, env=runtime)
    assert server.post("/double", json={"x": 1}).status_code == 200
    status, _, err = litplex("requests")
    assert status == 1
    assert "the option `recent_requests` of this server is 0" in err


BEHIND_AN_APP = """
    import asyncio

    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    async def pause(request, call_next):
        await asyncio.sleep(0.02)
        return await call_next(request)

    if __name__ == "__main__":
        server = ls.LitServer(Echo(), path="/echo")
        server.app.middleware("http")(pause)
        server.run(port=0, keep_bodies=40)
"""


def test_stages_behind_middlewares_and_the_start_of_bodies(serve, runtime, ask, litplex):
    server = serve(BEHIND_AN_APP, env=runtime)
    value = {"x": "a text", "api_key": "12345", "y": "more than there is room for"}

    def trace(request_id, **kept):
        headers = {"X-Request-ID": request_id}
        assert server.post("/echo", headers=headers, **kept).status_code == 200
        wait_until(lambda: litplex("trace", request_id)[0] == 0)
        [details] = ask("trace", request_id)
        return details

    details = trace("json", json=value)
    kinds = [it["kind"] for it in details["waterfall"]]
    assert kinds[0] == "edge"
    assert kinds[-1] == "response"
    assert kinds.count("worker") == kinds.count("queue") == kinds.count("predict") == 1
    assert details["stages"]["edge"] >= 0.02, "the middleware is before the queue"
    for kept in details["request_body"], details["response_body"]:
        assert kept["content_type"] == "application/json"
        assert kept["text"].replace(" ", "").startswith('{"x":"atext","api_key":"***"')
        assert kept["is_cut"]
    assert "12345" not in json.dumps(details)
    details = trace("short", json="ab")
    assert details["request_body"]["text"] == details["response_body"]["text"] == '"ab"'
    assert not details["request_body"]["is_cut"]
    # Only JSON and text are kept.
    details = trace("form", data={"a": "b"})
    assert "request_body" not in details
