"""New generations that are warmed up, tried on requests or copies of them, and rolled back."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from conftest import wait_until

MODEL = """
    import os, random, signal, time

    import pydantic

    VERSION = {version}

    class Checked(pydantic.RootModel[int]):
        pass

    class Model(ls.LitAPI):
        request_example = 1

        def setup(self, device):
            {setup}

        def encode_response(self, value) -> {output}:
            return value

        def predict(self, x):
            {before}
            time.sleep(0.005)
            if x != self.request_example:
                {predict}
            return VERSION

    class Stateful(ls.LitAPI):
        def predict(self, x):
            {predict}
            return VERSION

    class Stream(ls.LitAPI):
        def predict(self, x):
            yield from range(3)

    class Caller(ls.LitAPI):
        model = ls.endpoint("/model")

        def predict(self, x):
            return [self.model(x) for _ in range(4)]
"""

SERVER = """
    import model

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(model.Model(), path="/model", {options}),
            ls.LitServer(model.Stateful(), path="/stateful", idempotent=False),
            ls.LitServer(model.Stream(stream=True), path="/stream"),
            ls.LitServer(model.Caller(), path="/caller"),
            port=0,
            request_id=True,
        )
"""


FAILS_ONCE = "if os.path.exists('broken'): os.remove('broken'); raise OSError('no weights')"


@pytest.fixture
def write_model(script):
    """Returns a function that writes the module of the models, each time as a new version."""
    versions: list[int] = []

    def write(setup="pass", before="pass", predict="pass", output="None"):
        versions.append(len(versions) + 1)
        parts = {"setup": setup, "before": before, "predict": predict, "output": output}
        path = script(MODEL.format(version=versions[-1], **parts), name="model.py")
        # Python compares the whole seconds of the time and the size with those of its cache.
        later = time.time() + 10 * versions[-1]
        os.utime(path, (later, later))
        return versions[-1]

    return write


@pytest.fixture
def start(serve, runtime, write_model):
    def run(options="", **model):
        write_model(**model)
        return serve(SERVER.replace("{options}", options), env=runtime)

    return run


@pytest.fixture
def generations(litplex):
    def ask(path):
        status, out, err = litplex("generations", path, "--json")
        assert status == 0, err
        return json.loads(out)

    return ask


@contextmanager
def load(server, path, threads=6):
    """Calls an endpoint all the time; each request must be answered. Yields the answers so far."""
    answers, done = [], threading.Event()

    def call():
        while not done.is_set():
            answer = server.post(path, json=2)
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())

    with ThreadPoolExecutor(max_workers=threads) as pool:
        callers = [pool.submit(call) for _ in range(threads)]
        try:
            yield answers
        finally:
            done.set()
        for caller in callers:
            caller.result()


def test_sabotaged_generations_fail_no_request(start, litplex, write_model, generations):
    server = start()
    canary = ("--canary", "20%")
    with load(server, "/model") as answers:
        for model, args, reason in (
            ({"setup": "raise OSError('no weights')"}, (), "setup raised OSError: no weights"),
            ({"setup": "time.sleep(60)"}, ("--timeout", "1"), "it was not ready after 1 s"),
            ({"setup": "os._exit(7)"}, (), "its process exited with status 7"),
            ({"setup": "this is no Python"}, canary, "SyntaxError"),
            ({"output": "Checked"}, canary, "it changes the schema of responses"),
            ({"predict": "os.kill(os.getpid(), signal.SIGKILL)"}, canary, "it lost a worker"),
            ({"predict": "os.kill(os.getpid(), signal.SIGSEGV)"}, canary, "it lost a worker"),
            ({"predict": "1 / (random.random() > 0.1)"}, canary, "requests"),
            ({"predict": "time.sleep(0.02)"}, canary, "its requests take longer"),
        ):
            write_model(**model)
            status, out, err = litplex("reload", "/model", *args)
            assert (status, out) == (1, ""), err
            assert reason in err, err
            if reason != "SyntaxError":  # the program cannot be read, and no generation starts
                failed = generations("/model")["generations"][-1]
                assert (failed["state"], reason in failed["reason"]) == ("failed", True), failed
            assert server.post("/model", json=2).json() == 1
    assert set(answers) <= {1, 5, 8, 9, 10}
    events = litplex("events")[1]
    for state in ("starting", "warming", "canary: 20 % of the requests", "failed"):
        assert f"generation 7 of /model is {state}" in events, events
    wait_until(lambda: len(server.workers()) == 4)
    metrics = server.client.get("/metrics").text
    requests = 'litplex_requests_total{{endpoint="/model",outcome="ok",status="200"}}'
    counted = [line for line in metrics.splitlines() if line.startswith(requests)]
    # The requests of warm-ups are not counted.
    assert [int(line.split()[-1]) for line in counted] in ([len(answers) + 9], []), metrics


def test_a_model_that_fails_its_warm_up_takes_no_request(start, litplex, write_model):
    server = start()
    for before in ("1 / 0", "os.kill(os.getpid(), signal.SIGSEGV)"):
        write_model(before=before)
        status, _, err = litplex("reload", "/model")
        assert (status, "a warm-up request failed" in err) == (1, True), err
    assert server.post("/model", json=2).json() == 1


def test_a_canary_is_promoted_when_it_is_no_worse(start, litplex, write_model, generations):
    server = start()
    write_model()
    with load(server, "/model") as answers:
        status, out, err = litplex("reload", "/model", "--canary", "50%", "--json")
    assert status == 0, err
    assert (json.loads(out)["generation"], json.loads(out)["state"]) == (2, "live")
    assert set(answers) == {1, 2}
    assert server.post("/model", json=2).json() == 2
    wait_until(
        lambda: [it["state"] for it in generations("/model")["generations"]] == ["ended", "live"]
    )


def test_an_operator_promotes_and_rolls_back(start, litplex, write_model, generations):
    server = start()
    status, _, err = litplex("promote", "/model")
    assert (status, "`/model` has no canary" in err) == (1, True), err
    status, _, err = litplex("rollback", "/model")
    assert (status, "has no earlier generation" in err) == (1, True), err
    write_model()
    args = ("reload", "/model", "--canary", "50%", "--detach")
    status, out, err = litplex(*args)
    assert (status, out) == (0, "/model tries generation 2\n"), err
    assert generations("/model")["generations"][-1]["share"] == 0.5
    # All calls for a request of a client are for one generation.
    answers = [server.post("/caller", json=2).json() for _ in range(40)]
    assert {len(set(answer)) for answer in answers} == {1}
    assert {answer[0] for answer in answers} == {1, 2}
    status, _, err = litplex("reload", "/model")
    assert (status, "generation 2 of `/model` is a canary" in err) == (1, True), err
    status, out, err = litplex("rollback", "/model")
    assert (status, out) == (0, "/model is served by generation 1\n"), err
    assert {server.post("/model", json=2).json() for _ in range(20)} == {1}

    assert litplex(*args)[0] == 0
    status, out, err = litplex("promote", "/model", "--json")
    assert (status, json.loads(out)["generation"]) == (0, 3), err
    assert {server.post("/model", json=2).json() for _ in range(20)} == {2}
    assert generations("/model")["earlier"] == [1]
    # A return imports the code that is there now.
    write_model()
    assert json.loads(litplex("rollback", "/model", "1", "--json")[1])["generation"] == 4
    assert server.post("/model", json=2).json() == 3
    status, _, err = litplex("rollback", "/model", "7")
    assert (status, "there are: 1, 3" in err) == (1, True), err


def test_an_operator_ends_a_start(start, litplex, write_model):
    server = start()
    write_model(setup="time.sleep(60)")
    with ThreadPoolExecutor() as pool:
        reloading = pool.submit(litplex, "reload", "/model")
        wait_until(lambda: "generation 2 " in litplex("ps")[1])
        assert litplex("rollback", "/model")[1] == "/model is served by generation 1\n"
        status, _, err = reloading.result()
        assert (status, "an operator ended its start" in err) == (1, True), err
    assert server.post("/model", json=2).json() == 1


def test_a_request_that_may_not_be_repeated_is_not_retried(
    start, litplex, write_model, generations
):
    server = start()
    write_model(predict="raise RuntimeError('broken')")
    assert litplex("reload", "/stateful", "--canary", "50%", "--detach")[0] == 0
    answers = [server.post("/stateful", json=2) for _ in range(30)]
    assert {answer.status_code for answer in answers} == {200, 500}
    wait_until(lambda: generations("/stateful")["generations"][-1]["state"] == "failed")
    assert {server.post("/stateful", json=2).json() for _ in range(20)} == {1}


def test_a_reload_in_place_holds_the_requests(start, litplex, write_model, generations, tmp_path):
    server = start()
    write_model(setup="time.sleep(0.5)")
    with load(server, "/model") as answers:
        status, _, err = litplex("reload", "/model", "--in-place")
        assert status == 0, err
        assert "the old workers stop before new ones start" in err
        assert server.post("/model", json=2).json() == 2
        states = [it["state"] for it in generations("/model")["generations"]]
        assert states == ["ended", "live"]
        # The first start fails: then the old options are launched again.
        write_model(setup=FAILS_ONCE)
        (tmp_path / "broken").touch()
        status, _, err = litplex("reload", "/model", "--in-place")
        assert (status, "setup raised OSError: no weights" in err) == (1, True), err
        assert "generation 4 has the options of generation 2" in err, err
        assert server.post("/model", json=2).json() == 3
    assert set(answers) == {1, 2, 3}
    assert litplex("events")[1].count("is starting: in place") == 2

    # If both fail, the endpoint has no worker until the next reload.
    write_model(setup="raise OSError('no weights')")
    status, _, err = litplex("reload", "/model", "--in-place")
    assert (status, "generation 4 did not start again" in err) == (1, True), err
    assert server.post("/model", json=2).status_code == 503
    write_model()
    status, _, err = litplex("reload", "/model")
    assert status == 0, err
    assert server.post("/model", json=2).json() == 5


def test_the_option_swap_chooses_how_workers_are_replaced(start, litplex, write_model, generations):
    server = start('swap="in_place", warmup=2')
    assert generations("/model")["next"]["swap"] == "in_place"
    write_model()
    status, _, err = litplex("reload", "/model", "--canary", "5%")
    assert (status, "reloaded in place, which allows no canary" in err) == (1, True), err
    status, _, err = litplex("reload", "/model")
    assert (status, "the old workers stop" in err) == (0, True), err
    assert server.post("/model", json=2).json() == 2


def test_a_server_is_ready_once_its_endpoints_are_warm(start, litplex):
    server = start("warmup=3, workers_per_device=2", predict="pass", setup="print('loaded')")
    assert "litplex_requests_total{" not in server.client.get("/metrics").text
    server.post("/model", json=2)


def answers_of(generations, path):
    """Returns the state of the last generation, and its answers that were compared and differ."""
    last = generations(path)["generations"][-1]
    answers = last.get("answers", {"compared": 0, "differed": 0})
    return last["state"], answers["compared"], answers["differed"]


def metric(server, series):
    """Returns the value of a series of the metrics, or 0."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{series} "))


def test_sabotaged_shadows_are_seen_by_no_client(start, litplex, write_model, generations):
    server = start("timeout=2")
    shadow = ("--shadow", "50%")
    with load(server, "/model") as answers:
        for model, reason in (
            ({"setup": "raise OSError('no weights')"}, "setup raised OSError: no weights"),
            ({"output": "Checked"}, "it changes the schema of responses"),
            ({"predict": "os.kill(os.getpid(), signal.SIGKILL)"}, "it lost a worker"),
            ({"predict": "1 / (random.random() > 0.1)"}, "requests"),
            ({"predict": "time.sleep(0.02)"}, "its requests take longer"),
            ({"predict": "time.sleep(8)"}, "failed, and 0 of "),
        ):
            write_model(**model)
            status, out, err = litplex("reload", "/model", *shadow)
            assert (status, out) == (1, ""), err
            assert reason in err, err
            assert generations("/model")["generations"][-1]["state"] == "failed"
    assert set(answers) == {1}
    series = 'litplex_request_body_bytes_count{endpoint="/model"}'
    # Each generation that was ready has answered requests of its warm-up.
    assert 0 <= metric(server, series) - len(answers) <= 8
    assert metric(server, 'litplex_shed_total{endpoint="/model",reason="deadline"}') == 0
    wait_until(lambda: len(server.workers()) == 4)


def test_a_shadow_is_compared_and_promoted(start, litplex, write_model, generations):
    server = start()
    write_model(predict="return 1 if random.random() < 0.5 else 2")
    status, out, err = litplex("reload", "/model", "--shadow", "100%", "--detach")
    assert (status, out) == (0, "/model tries generation 2\n"), err
    listed = generations("/model")["generations"][-1]
    assert (listed["state"], listed["share"]) == ("shadow", 1.0)
    status, _, err = litplex("reload", "/model")
    assert (status, "generation 2 of `/model` is a shadow" in err) == (1, True), err
    arrived = 'litplex_request_body_bytes_count{endpoint="/model"}'
    with load(server, "/model") as answers:
        wait_until(lambda: answers_of(generations, "/model")[0] == "live")
    assert set(answers[:100]) == {1}
    state, compared, differed = answers_of(generations, "/model")
    assert state == "live"
    assert 100 <= compared <= len(answers)
    assert 0.2 * compared < differed < 0.8 * compared
    assert f"{differed} of {compared} answers differ" in litplex("generations", "/model")[1]
    events = litplex("events")[1]
    assert "generation 2 of /model is shadow: copies of 100 % of the requests" in events
    assert f"generation 2 of /model is live; {differed} of {compared} answers differ" in events
    # Copies are in no metric and no recorded request; the warm-up is in those of the queue.
    assert metric(server, arrived) == len(answers) + 1
    requests = 'litplex_requests_total{code="200",endpoint="/model",outcome="ok"}'
    assert metric(server, requests) == len(answers)
    status, out, err = litplex("requests", "/model", "--json")
    recorded = [json.loads(line) for line in out.splitlines()]
    assert recorded, err
    assert {it["generation"] for it in recorded} <= {1, 2}
    assert not any("shadow" in it["id"] for it in recorded), out


def test_streams_and_calls_of_shadows(start, litplex, write_model, generations):
    server = start()
    write_model()
    for path in ("/stream", "/caller"):
        status, _, err = litplex("reload", path, "--shadow", "1", "--detach")
        assert status == 0, err
    calls = 'litplex_request_body_bytes_count{endpoint="/model"}'
    before = metric(server, calls)
    for _ in range(10):
        assert server.post("/stream", json=2).text.split() == ["0", "1", "2"]
        assert server.post("/caller", json=2).json() == [1, 1, 1, 1]
    wait_until(lambda: answers_of(generations, "/caller") == ("shadow", 10, 0))
    assert answers_of(generations, "/stream") == ("shadow", 0, 0)
    # The hooks of copies make their calls, each of which is a request of the callee.
    wait_until(lambda: metric(server, calls) == before + 80)
    assert metric(server, 'litplex_chunks_total{endpoint="/stream"}') == 30
    # A call for a copy is for the shadow of its callee, and is not copied again.
    status, _, err = litplex("reload", "/model", "--shadow", "1", "--detach")
    assert status == 0, err
    assert server.post("/caller", json=2).json() == [1, 1, 1, 1]
    wait_until(lambda: answers_of(generations, "/caller") == ("shadow", 11, 1))
    wait_until(lambda: answers_of(generations, "/model") == ("shadow", 4, 4))
    for path in ("/stream", "/caller", "/model"):
        status, out, err = litplex("rollback", path)
        assert (status, out) == (0, f"{path} is served by generation 1\n"), err


def test_a_shadow_of_an_endpoint_that_is_not_idempotent(start, litplex, write_model, generations):
    server = start()
    write_model()
    for args in (["/stateful"], ["/stateful", "--in-place"], ["/model", "--canary", "5%"]):
        status, _, err = litplex("reload", *args, "--shadow", "50%", "--detach")
        assert status != 0, err
    status, _, err = litplex("reload", "/stateful", "--shadow", "50%")
    assert (status, "`--allow-effects` allows" in err) == (1, True), err
    allowed = ("--shadow", "100%", "--allow-effects", "--detach")
    status, _, err = litplex("reload", "/stateful", *allowed)
    assert status == 0, err
    assert [server.post("/stateful", json=2).json() for _ in range(5)] == [1] * 5
    wait_until(lambda: answers_of(generations, "/stateful") == ("shadow", 5, 5))
    status, out, err = litplex("promote", "/stateful")
    assert (status, out[:34]) == (0, "/stateful is served by generation "), err
    assert server.post("/stateful", json=2).json() == 2
