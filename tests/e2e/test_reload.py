"""New generations of an endpoint's workers, while it serves."""

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import wait_until

MODEL = """
    import time

    VERSION = {version}

    class Model(ls.LitAPI):
        def setup(self, device):
            {setup}

        def predict(self, x):
            time.sleep(0.002)
            return VERSION

    class Batched(ls.LitAPI):
        def setup(self, device):
            {setup}

        def predict(self, xs):
            return [VERSION] * len(xs)

    class Stream(ls.LitAPI):
        def predict(self, n):
            for i in range(n):
                time.sleep(0.02)
                yield [VERSION, i]

    class Caller(ls.LitAPI):
        model = ls.endpoint("/model")

        def predict(self, x):
            return self.model(x)
"""

SERVER = """
    import model

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(model.Model(), path="/model", name="model", workers_per_device=2),
            ls.LitServer(model.Batched(max_batch_size=4), path="/batched"),
            ls.LitServer(model.Stream(stream=True), path="/stream"),
            ls.LitServer(model.Caller(), path="/caller"),
            ls.LitServer(ls.Pipeline("/model"), path="/pipeline"),
            port=0,
        )
"""


@pytest.fixture
def write_model(script, tmp_path):
    """Returns a function that writes the module of the models."""

    def write(version, setup="pass"):
        path = script(MODEL.format(version=version, setup=setup), name="model.py")
        # Python compares the whole seconds of the time and the size with those of its cache.
        later = time.time() + 10 * version
        os.utime(path, (later, later))

    return write


def reload(litplex, path, *args):
    status, out, err = litplex("reload", path, "--json", *args)
    assert status == 0, err
    return json.loads(out)


def test_a_reload_loses_no_request_and_ends_no_stream(
    serve, runtime, litplex, write_model, endpoint_of
):
    write_model(1)
    server = serve(SERVER, env=runtime)
    seen: dict[str, list[int]] = {}
    done = threading.Event()

    def call(path):
        versions = seen.setdefault(path, [])
        while not done.is_set():
            answer = server.post(path, json=1)
            assert answer.status_code == 200, answer.text
            versions.append(answer.json())

    def read_stream():
        with server.client.stream("POST", "/stream", json=100) as answer:
            return [json.loads(line) for line in answer.iter_lines() if line]

    paths = ["/model", "/batched", "/caller", "/pipeline"]
    with ThreadPoolExecutor(max_workers=16) as pool:
        callers = [pool.submit(call, path) for path in [*paths, *paths]]
        streams = [pool.submit(read_stream) for _ in range(3)]
        try:
            wait_until(lambda: all(seen.get(path) for path in paths))
            wait_until(lambda: endpoint_of("/stream")["queued"] == 2)
            for version in (2, 3):
                write_model(version)
                for path in ("/model", "/batched", "/stream"):
                    reloaded = reload(litplex, path)
                    assert (reloaded["endpoint"], reloaded["generation"]) == (path, version)
                assert server.post("/model", json=1).json() == version
                assert server.post("/caller", json=1).json() == version
                assert server.post("/pipeline", json=1).json() == version
        finally:
            done.set()
        for caller in callers:
            caller.result()
        # Each stream ends on the generation that it began with.
        assert [stream.result() for stream in streams] == [[[1, i] for i in range(100)]] * 3
    for path in paths:
        assert set(seen[path]) >= {1, 3}, path
    wait_until(
        lambda: [it["state"] for it in endpoint_of("/stream")["generations"]]
        == ["ended", "ended", "live"]
    )
    (stream,) = endpoint_of("/stream")["workers"]
    assert stream["state"] == "ready"
    # Two of the model, and one of each other endpoint.
    wait_until(lambda: len(server.workers()) == 5)
    events = litplex("events")[1]
    for text in ("generation 2 of /model is live", "generation 1 of /model is draining"):
        assert text in events


def test_what_fails_leaves_the_live_generation(serve, runtime, litplex, write_model, endpoint_of):
    write_model(1)
    server = serve(SERVER, env=runtime)
    write_model(1, "this is no Python")
    status, out, err = litplex("reload", "/model")
    assert (status, out) == (1, "")
    # The program itself cannot run: the place of the error is shown as at the start.
    assert re.search(r'model.py", line \d+', err) and "SyntaxError" in err, err
    for number, setup, reason in (
        (2, "raise OSError('no weights')", "setup raised OSError: no weights"),
        (3, "import os; os._exit(7)", "its process exited with status 7"),
        (4, "time.sleep(60)", "it was not ready after 1 s"),
    ):
        write_model(number, setup)
        args = ("--timeout", "1") if number == 4 else ()
        status, out, err = litplex("reload", "/model", *args)
        assert (status, out) == (1, "")
        assert f"generation {number} of `/model` did not become ready; generation 1 goes on" in err
        assert reason in err, err
        failed = endpoint_of("/model")["generations"][-1]
        assert (failed["state"], reason in failed["reason"]) == ("failed", True)
        assert server.post("/model", json=1).json() == 1
    assert len(endpoint_of("/model")["workers"]) == 2
    assert "generation 4" in litplex("ps")[1]
    write_model(5)
    assert reload(litplex, "model")["generation"] == 5
    assert server.post("/model", json=1).json() == 5


def test_a_reload_that_cannot_begin_is_refused(serve, runtime, litplex, write_model):
    write_model(1)
    server = serve(SERVER, env=runtime)
    for path, reason in (
        ("/pipeline", "is a pipeline, which has no workers; reload the endpoints that it calls"),
        ("/none", "there is no endpoint `/none`"),
    ):
        status, _, err = litplex("reload", path)
        assert (status, reason in err) == (1, True), err
    assert litplex("pause", "/model")[0] == 0
    status, _, err = litplex("reload", "/model")
    assert (status, "`/model` is paused; `litplex resume` it first" in err) == (1, True), err
    assert litplex("resume", "/model")[0] == 0
    write_model(2, "time.sleep(2)")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(litplex, "reload", "/model")
        wait_until(lambda: "generation 2 " in litplex("ps")[1])
        status, _, err = litplex("reload", "/model")
        assert (status, "`/model` is being reloaded" in err) == (1, True), err
        assert first.result()[0] == 0
    assert server.post("/model", json=1).json() == 2


def test_a_number_of_workers_and_a_drain_outlive_a_reload(
    serve, runtime, litplex, write_model, endpoint_of
):
    write_model(1)
    server = serve(SERVER, env=runtime)
    assert litplex("scale", "/model", "1")[0] == 0
    assert litplex("drain", "/model")[0] == 0
    reload(litplex, "/model")
    endpoint = endpoint_of("/model")
    assert (endpoint["wanted"], endpoint["state"]) == (1, "draining")
    assert server.post("/model", json=1).status_code == 503
    assert server.post("/caller", json=1).json() == 1


def test_a_stop_ends_a_reload(serve, runtime, litplex, write_model):
    write_model(1)
    server = serve(SERVER, env=runtime)
    write_model(2, "time.sleep(60)")
    with ThreadPoolExecutor() as pool:
        reloading = pool.submit(litplex, "reload", "/model")
        wait_until(lambda: "generation 2 " in litplex("ps")[1])
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert reloading.result()[0] == 1
