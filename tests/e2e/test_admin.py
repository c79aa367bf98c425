"""Looking at running servers, and changing them while they serve."""

import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import LITPLEX, is_alive, parent_of, wait_until

SERVER = """
    import time

    class Double(ls.LitAPI):
        def predict(self, x):
            time.sleep(0.01)
            return 2 * x

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Double(), path="/double"),
            ls.LitServer(Double(), path="/elastic", name="two", min_workers=1, max_workers=2),
            port=0,
        )
"""


@pytest.fixture
def status_of(litplex):
    """Returns the output of `litplex ps --json` for the only server or one of its endpoints."""

    def ask(path=None):
        status, out, err = litplex("ps", "--json")
        assert status == 0, err
        told = json.loads(out)
        return next((e for e in told["endpoints"] if e["path"] == path), told)

    return ask


def port_of(server):
    return server.url.rpartition(":")[2]


def test_ps_shows_what_runs(serve, runtime, litplex, status_of):
    server = serve(SERVER, env=runtime)
    for x in range(3):
        assert server.post("/double", json=x).json() == 2 * x
    status, out, _ = litplex("ps")
    assert status == 0
    for text in (
        server.url,
        "/double",
        "Double",
        "/elastic",
        "two",
        "#0",
        "cpu",
        "ready",
        "(1 to 2)",
    ):
        assert text in out
    told = status_of()
    assert (told["url"], str(told["port"])) == (server.url, port_of(server))
    assert told["uptime"] > 0
    double = status_of("/double")
    assert (double["name"], double["aliases"]) == ("Double", [])
    assert (double["kind"], double["state"], double["problem"]) == ("python", "ready", None)
    assert (double["requests"], double["queued"], double["in_flight"]) == (3, 0, 0)
    (worker,) = double["workers"]
    assert worker["pid"] in server.workers()
    assert (worker["slot"], worker["state"], worker["restarts"]) == (0, "ready", 0)
    elastic = status_of("/elastic")
    assert (elastic["wanted"], elastic["min_workers"], elastic["max_workers"]) == (1, 1, 2)


def test_ps_counts_the_requests_that_the_metrics_count(serve, runtime, litplex, status_of):
    server = serve(
        """
        class Embed(ls.LitAPI):
            def predict(self, texts):
                return [[1.0] for text in texts]

        spec = ls.OpenAIEmbeddingSpec()
        embed = ls.LitServer(Embed(max_batch_size=4, spec=spec), api_keys={"ann": "env:ANN"})
        ls.run_servers(embed, port=0)
        """,
        env={**runtime, "ANN": "k"},
    )
    key, texts = {"X-API-Key": "k"}, {"model": "m", "input": ["a", "b", "c"]}
    for expected, headers, body in [(200, key, texts), (422, key, {}), (401, {}, texts)]:
        answer = server.post("/v1/embeddings", json=body, headers=headers)
        assert answer.status_code == expected, answer.text
    page = server.client.get("/metrics").text
    counts = re.findall(r'litplex_requests_total\{.*"/v1/embeddings".*\} (\d+)', page)
    # Three inputs are one request, and a refused request is one too.
    assert sum(map(int, counts)) == status_of("/v1/embeddings")["requests"] == 3


def test_ps_tells_of_a_worker_that_was_replaced(serve, runtime, status_of):
    serve(SERVER, env=runtime)
    (worker,) = status_of("/double")["workers"]
    os.kill(worker["pid"], signal.SIGKILL)

    def is_replaced():
        (now,) = status_of("/double")["workers"]
        return now["state"] == "ready" and now["restarts"] == 1 and now["pid"] != worker["pid"]

    wait_until(is_replaced)


def test_a_reader_that_has_gone_ends_the_command_quietly(serve, runtime):
    serve(SERVER, env=runtime)
    for command in (["ps"], ["ps", "--json"], ["scale", "/double", "1"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [LITPLEX, *command],
            env={**os.environ, **runtime},
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")


def test_nothing_runs(litplex):
    for args in (["ps"], ["ps", "--json"], ["scale", "/double", "2"]):
        assert litplex(*args) == (1, "", "error: no litplex server of this user is running\n")


def test_scaling_loses_no_request(serve, runtime, litplex, status_of):
    server = serve(SERVER, env=runtime)
    done = threading.Event()
    statuses = set()

    def call():
        while not done.is_set():
            statuses.add(server.post("/double", json=1).status_code)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for workers in (3, 1):
            status, out, err = litplex("scale", "/double", str(workers))
            assert (status, f"/double is to have {workers} worker" in out) == (0, True), err

            def is_scaled(workers=workers):
                endpoint = status_of("/double")
                states = [worker["state"] for worker in endpoint["workers"]]
                return endpoint["wanted"] == workers and states == ["ready"] * workers

            wait_until(is_scaled)
            # One more is that of the other endpoint.
            wait_until(lambda workers=workers: len(server.workers()) == workers + 1)
    finally:
        done.set()
        for caller in callers:
            caller.join()
    assert statuses == {200}


def test_an_endpoint_that_is_not_there_is_answered_with_those_that_are(serve, runtime, litplex):
    serve(SERVER, env=runtime)
    status, _, err = litplex("scale", "/no", "2")
    assert status == 1
    assert "there is no endpoint `/no`; there are `/double`, `/elastic`" in err
    status, _, err = litplex("scale", "two", "9")
    assert status == 1
    assert "`/elastic` has at most 2 workers (`max_workers`); choose 0 to 2" in err


def test_one_of_several_servers_is_chosen_by_its_port(serve, runtime, litplex):
    first = serve(SERVER, env=runtime)
    second = serve(SERVER, env=runtime)
    status, out, _ = litplex("ps")
    assert (status, first.url in out, second.url in out) == (0, True, True)
    status, _, err = litplex("scale", "/double", "2")
    assert (status, "choose one with --port" in err) == (1, True)
    assert first.url in err and second.url in err
    assert litplex("scale", "/double", "2", "--port", port_of(second))[0] == 0
    told = json.loads(litplex("ps", "--json", "--port", port_of(second))[1])
    assert told["endpoints"][0]["wanted"] == 2
    told = json.loads(litplex("ps", "--json", "--port", port_of(first))[1])
    assert told["endpoints"][0]["wanted"] == 1


def test_files_of_a_killed_server_are_removed(serve, runtime, litplex):
    kept = Path(runtime["XDG_RUNTIME_DIR"], "litplex")
    assert serve(SERVER, env=runtime).stop() == 0
    assert list(kept.iterdir()) == []

    killed = serve(SERVER, env=runtime)
    (left_over,) = kept.iterdir()
    binary = parent_of(killed.workers()[0])
    os.kill(binary, signal.SIGKILL)
    wait_until(lambda: not is_alive(binary))
    assert litplex("ps")[0] == 1
    serve(SERVER, env=runtime)
    assert not left_over.exists()
    assert len(list(kept.iterdir())) == 1


def test_other_users_cannot_reach_a_server(serve, runtime):
    serve(SERVER, env=runtime)
    kept = Path(runtime["XDG_RUNTIME_DIR"], "litplex")
    (directory,) = kept.iterdir()
    modes = [path.stat().st_mode & 0o777 for path in (kept, directory, directory / "admin.sock")]
    assert modes == [0o700, 0o700, 0o600]
