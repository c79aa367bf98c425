"""Looking at running servers, and changing them while they serve."""

import json
import os
import re
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from select import select

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
    commands = (
        "ps",
        "ps --json",
        "scale /double 2",
        "logs",
        "events",
        "stop",
        "pause /x",
        "stack /x",
    )
    for args in map(str.split, commands):
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


OPERATED = """
    class Echo(ls.LitAPI):
        def predict(self, x):
            print("echo", x)
            if x == "native":
                # Seconds in which native code keeps the interpreter's lock.
                sum(range(2 * 10**8))
            return x

    class Relay(ls.LitAPI):
        echo = ls.endpoint("/echo")

        def predict(self, x):
            return self.echo(x)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Echo(), path="/echo", name="echo"),
            ls.LitServer(Relay(), path="/relay"),
            ls.LitServer(Echo(), path="/other"),
            port=0,
            request_id=True,
        )
"""


def test_a_paused_endpoint_holds_its_requests(serve, runtime, litplex, status_of):
    server = serve(OPERATED, env=runtime)
    status, out, err = litplex("pause", "echo")
    assert (status, err) == (0, "")
    assert out.startswith("/echo is paused: requests wait in its queue")
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(server.post, path, json=1) for path in ("/echo", "/relay")]
        wait_until(lambda: status_of("/echo")["queued"] == 2)
        assert status_of("/echo")["state"] == "paused"
        assert server.post("/other", json=2).json() == 2
        assert json.loads(litplex("resume", "/echo", "--json")[1]) == {
            "endpoint": "/echo",
            "mode": "serving",
        }
        assert [answer.result().json() for answer in held] == [1, 1]
    assert status_of("/echo")["state"] == "ready"


def test_a_drained_endpoint_refuses_new_requests_and_not_calls(serve, runtime, litplex, status_of):
    server = serve(OPERATED, env=runtime)
    assert litplex("drain", "/echo")[0] == 0
    assert status_of("/echo")["state"] == "draining"
    refused = server.post("/echo", json=1)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert "its operator drains it" in refused.json()["detail"]
    assert server.post("/relay", json=1).json() == 1
    assert litplex("resume", "/echo")[1] == "/echo serves\n"
    assert server.post("/echo", json=1).json() == 1


def test_the_stack_of_a_worker_shows_native_calls(serve, runtime, litplex):
    server = serve(OPERATED, env=runtime)
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(server.post, "/echo", json="native")
        wait_until(lambda: "in predict" in litplex("stack", "echo#0")[1])
        status, out, err = litplex("stack", "/echo", "--json")
        assert (status, err) == (0, "")
        told = json.loads(out)
        assert told["worker"] == "/echo#0" and "in predict" in told["stack"]
        assert not stuck.done()
        assert stuck.result().json() == "native"
    assert server.post("/echo", json=1).json() == 1
    status, _, err = litplex("stack", "/echo#7")
    assert (status, "there is no worker `/echo#7`; there are 1 workers" in err) == (1, True)


def test_the_log_is_read_by_endpoint_worker_and_request(serve, runtime, litplex):
    server = serve(OPERATED, env=runtime)
    ids = [server.post("/echo", json=x).headers["X-Request-Id"] for x in (1, 2)]
    server.post("/other", json=3)

    def printed(*args):
        status, out, err = litplex("logs", *args)
        assert (status, err) == (0, "")
        return re.findall(r"echo (\d)", out)

    # The lines of two workers come in any order.
    wait_until(lambda: sorted(printed()) == ["1", "2", "3"])
    assert printed("echo") == printed("--worker", "/echo#0") == ["1", "2"]
    assert printed("--request", ids[1]) == ["2"]
    assert len(printed("-n", "1")) == 1
    lines = litplex("logs", "/other", "--json")[1].splitlines()
    assert json.loads(lines[-1])["message"] == "echo 3"
    status, _, err = litplex("logs", "/no")
    assert (status, "there is no endpoint `/no`" in err) == (1, True)
    follow = subprocess.Popen(
        [LITPLEX, "logs", "-f", "-n", "0"],
        env={**os.environ, **runtime},
        stdout=subprocess.PIPE,
        text=True,
    )
    out = follow.stdout
    assert out is not None
    try:
        # The first line that it gets shows that it follows.
        wait_until(lambda: server.post("/echo", json=4) and select([out], [], [], 0.1)[0])
        assert "/echo#0: echo 4" in out.readline()
    finally:
        follow.kill()
        follow.communicate()


def test_events_say_what_happened_to_workers(serve, runtime, litplex, status_of):
    serve(OPERATED, env=runtime)
    (worker,) = status_of("/echo")["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: status_of("/echo")["workers"][0]["restarts"] == 1)
    assert litplex("scale", "/echo", "1", "--json")[0] == 0
    status, out, err = litplex("events")
    assert (status, err) == (0, "")
    for text in (
        "/echo#0 is ready",
        "/echo#0 is starting: its process was killed by signal 9",
        "all endpoints serve",
        "/echo is scaled from 1 to 1 workers",
    ):
        assert text in out
    events = [json.loads(line) for line in litplex("events", "--json")[1].splitlines()]
    (scaled,) = (event for event in events if event["event"] == "scaled")
    assert (scaled["endpoint"], scaled["before"], scaled["wanted"]) == ("/echo", 1, 1)


def test_the_level_of_the_log_is_set_while_the_server_runs(serve, runtime, litplex):
    server = serve(OPERATED, env=runtime)
    assert litplex("log-level")[1] == "info\n"
    assert "draining" not in litplex("logs")[1]
    assert litplex("log-level", "debug")[1] == "debug\n"
    assert litplex("scale", "/echo", "0")[0] == 0
    wait_until(lambda: "DEBUG /echo#0: draining" in litplex("logs")[1])
    server.wait_for_line("DEBUG /echo#0: draining")
    status, _, err = litplex("log-level", "debg")
    assert (status, "invalid level `debg`: expected off, error, warn" in err) == (1, True)


def test_stop_waits_until_the_server_has_ended(serve, runtime, litplex):
    server = serve(OPERATED, env=runtime)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(server.post, "/echo", json="native")
        wait_until(lambda: "in predict" in litplex("stack", "echo")[1])
        status, out, err = litplex("stop")
        assert (status, err) == (0, "")
        assert out.endswith("stops\nstopped\n")
        assert running.result().json() == "native"
    assert litplex("ps")[0] == 1


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


LOADING = """
    import pathlib, time

    class Slow(ls.LitAPI):
        def setup(self, device):
            print("shard 1 of 2")
            while not pathlib.Path("go").exists():
                time.sleep(0.01)

        def predict(self, x):
            return x

    if __name__ == "__main__":
        ls.LitServer(Slow(), path="/slow").run(port=0)
"""


def test_a_worker_that_loads_its_model_shows_how_far_it_is(
    serve, runtime, litplex, status_of, tmp_path
):
    server = serve(LOADING, env=runtime, ready=False).wait_until_listening()

    def worker():
        return status_of("/slow")["workers"][0]

    wait_until(lambda: worker()["last_line"])
    told = worker()
    assert (told["state"], told["last_line"]["text"]) == ("starting", "shard 1 of 2")
    assert told["starting_for"] >= 0 and told["ready_for"] is None
    assert told["memory"] > 1_000_000 and told["pid"] in server.workers()
    _, out, _ = litplex("ps")
    assert "MB" in out and ": shard 1 of 2" in out
    # A `setup` that hangs is seen in the act, and goes on.
    assert "in setup" in litplex("stack", "/slow")[1]
    (tmp_path / "go").touch()
    server.wait_until_ready()
    told = worker()
    assert (told["starting_for"], told["last_line"]) == (None, None)
    assert told["memory"] > 1_000_000
    assert server.post("/slow", json=1).json() == 1
