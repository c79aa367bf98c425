"""More models than fit: which workers are in memory, within a budget."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import wait_until

# Workers of 100 MB, with about 30 MB of Python itself.
MODEL = """
    import os, time

    class Model(ls.LitAPI):
        def __init__(self, megabytes=100, calls=None, seconds=0.0):
            super().__init__()
            self.megabytes, self.calls, self.seconds = megabytes, calls, seconds

        def setup(self, device):
            self.data = bytearray(os.urandom(1)) * (self.megabytes << 20)

        def predict(self, x):
            time.sleep(self.seconds)
            return ls.endpoint(self.calls)(x) if self.calls else [x, self.megabytes]
"""

# Without templates, which are workers too as `Server.workers` sees it.
COLD = "min_workers=0, max_workers=1, keep_alive='auto', preload=[]"

SERVER = (
    MODEL
    + """
    if __name__ == "__main__":
        ls.run_servers({servers} port=0, memory_budget="300MB", {options})
"""
)


def program(servers, options=""):
    text = "".join(f"ls.LitServer({model}, path='{path}', {of}), " for path, model, of in servers)
    return SERVER.format(servers=text, options=options)


def held(server):
    """Returns the memory of all workers and the budget, in bytes."""
    text = server.client.get("/metrics").text
    names = ("litplex_memory_held_bytes", "litplex_memory_budget_bytes")
    return [float(re.findall(rf'{name}{{place="host"}} (\S+)', text)[0]) for name in names]


def count(server, name, endpoint):
    found = re.search(rf'{name}{{endpoint="{endpoint}"}} (\S+)', server.client.get("/metrics").text)
    return found and float(found[1])


def test_models_take_turns_within_a_budget(serve, runtime, litplex):
    paths = ["/a", "/b", "/c", "/d"]
    server = serve(program([(path, "Model()", COLD) for path in paths]), env=runtime)
    assert server.workers() == [], "none is loaded at the start"
    for path in [*paths, "/a", "/c", *paths]:
        assert server.post(path, json=7).json() == [7, 100]
        size, budget = held(server)
        assert size <= budget == 300e6
        assert len(server.workers()) <= 2
    assert sum(count(server, "litplex_worker_evictions_total", path) for path in paths) >= 3
    assert sum(count(server, "litplex_worker_loads_total", path) for path in paths) >= 5
    server.wait_for_line("evicted for `/d`")
    status, out, err = litplex("ps")
    assert (status, err) == (0, "")
    assert re.search(r"memory [\d.]+ MB of 300.0 MB", out), out
    assert re.search(
        r"/\w +Model +python +asleep .*needs 1\d\d\.\d MB +.*evicted for `/\w`", out
    ), out
    assert server.stop() == 0


def test_what_a_model_needs_is_remembered_and_a_model_that_never_fits_is_refused(serve):
    source = program([("/a", "Model()", COLD), ("/big", "Model(400)", COLD)])
    server = serve(source)
    # Nothing is known of it: it is tried, measured, and must leave.
    assert server.post("/big", json=1).status_code == 200
    server.wait_for_line("all workers have")
    wait_until(lambda: server.workers() == [])
    refused = server.post("/big", json=1)
    assert refused.status_code == 503
    assert re.search(r"it needs 0\.4\d GB beside 0\.00 GB, of 0\.30 GB", refused.text), refused.text
    assert int(refused.headers["retry-after"]) >= 1
    assert server.post("/a", json=1).status_code == 200, "the others serve"
    assert server.stop() == 0
    server = serve(source)
    assert server.post("/big", json=1).status_code == 503
    assert "/big#0: ready" not in server.output
    assert server.stop() == 0


def test_a_program_whose_models_must_stay_and_do_not_fit_does_not_start(serve, runtime):
    servers = [("/a", "Model()", "memory='200MB'"), ("/b", "Model()", "memory='200MB'")]
    server = serve(program(servers), ready=False)
    assert server.wait() == 3
    assert re.search(r"it needs 0\.20 GB beside 0\.\d\d GB, of 0\.30 GB", server.output), (
        server.output
    )
    assert "raise `memory_budget`" in server.output


def test_those_that_stay_load_one_after_the_other_where_they_would_pass_the_budget(serve):
    # Declared as larger than they are: the second is loaded once the first was measured.
    servers = [(f"/{name}", "Model(50)", "memory='160MB'") for name in "ab"]
    server = serve(program(servers))
    assert len(server.workers()) == 2
    assert server.stop() == 0


def test_a_pinned_model_and_one_that_is_in_use_stay(serve):
    servers = [
        ("/pinned", "Model()", f"{COLD}, pinned=True"),
        ("/slow", "Model(seconds=1)", COLD),
        ("/a", "Model()", COLD),
    ]
    server = serve(program(servers))
    assert server.post("/pinned", json=1).status_code == 200
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(server.post, "/slow", json=1)
        wait_until(lambda: "/slow#0: ready" in server.output)
        other = pool.submit(server.post, "/a", json=2)
        assert slow.result().json() == [1, 100], "its request is answered"
        assert other.result().json() == [2, 100]
    assert count(server, "litplex_worker_evictions_total", "/pinned") == 0
    assert count(server, "litplex_worker_evictions_total", "/slow") == 1
    assert server.stop() == 0


def test_what_an_operator_asks_for_takes_the_place_of_idle_models(serve, runtime, litplex):
    servers = [(path, "Model()", f"{COLD}, memory='140MB'") for path in ("/a", "/b", "/c")]
    server = serve(program(servers), env=runtime)
    for path in ("/a", "/b"):
        assert server.post(path, json=1).status_code == 200
    status, _, err = litplex("reload", "/c")
    assert status == 0, err
    assert sum(count(server, "litplex_worker_evictions_total", path) for path in ("/a", "/b")) == 1
    assert litplex("scale", "/a", "1")[0] == 0
    assert litplex("scale", "/b", "1")[0] == 0
    ready = 'litplex_workers{endpoint="/%s",state="ready"} 1'

    def are_ready():
        text = server.client.get("/metrics").text
        return all(ready % name in text for name in "ab")

    wait_until(are_ready)
    assert server.post("/c", json=1, headers={"X-Request-Timeout": "3"}).status_code == 503
    assert server.stop() == 0


def test_a_chain_of_calls_that_cannot_fit_at_once_is_refused_with_the_sum(serve):
    servers = [
        ("/front", "Model(150, calls='/back')", f"{COLD}, memory='190MB'"),
        ("/back", "Model(150)", f"{COLD}, memory='190MB'"),
    ]
    server = serve(program(servers))
    assert server.post("/back", json=1).json() == [1, 150]
    # Its caller is loaded in its place; then there is no room for both.
    answer = server.post("/front", json=1)
    assert answer.status_code >= 500
    says = r"needs 0\.1\d GB beside 0\.1\d GB, of 0\.30 GB"
    assert re.search(says, answer.text), answer.text
    server.wait_for_line(says)
    wait_until(lambda: server.post("/back", json=1).status_code == 200)
    assert server.stop() == 0


def test_a_model_that_cannot_be_loaded_does_not_end_the_server(serve):
    broken = (
        MODEL
        + """
    class Broken(ls.LitAPI):
        def setup(self, device):
            raise RuntimeError("no weights")
        def predict(self, x):
            return x

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Model(), path="/a", min_workers=0, max_workers=1),
            ls.LitServer(Broken(), path="/broken", min_workers=0, max_workers=1),
            port=0,
        )
    """
    )
    server = serve(broken)
    answer = server.post("/broken", json=1)
    assert answer.status_code == 503
    assert "its model cannot be loaded" in answer.text
    server.wait_for_line("no weights")
    assert server.post("/a", json=1).status_code == 200
    assert server.client.get("/health").status_code in (200, 503)
    assert server.stop() == 0


def test_a_worker_that_is_killed_gives_its_memory_back(serve):
    of = f"{COLD}, memory='140MB'"
    server = serve(program([(path, "Model()", of) for path in ("/a", "/b", "/c")]))
    for path in ("/a", "/b"):
        assert server.post(path, json=1).status_code == 200
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    for path in ("/c", "/a", "/b", "/c"):
        wait_until(lambda path=path: server.post(path, json=1).status_code == 200)
        size, budget = held(server)
        assert size <= budget
    assert server.stop() == 0


def test_an_operator_sees_what_fits_and_whether_a_model_comes_back(serve, runtime, litplex):
    random = MODEL.replace("[x, self", "[time.monotonic(), self")
    rest = SERVER.removeprefix(MODEL)
    servers = [(path, "Model()", COLD) for path in ("/a", "/b", "/c")]
    text = "".join(f"ls.LitServer({model}, path='{path}', {of}), " for path, model, of in servers)
    server = serve(MODEL + rest.format(servers=text, options=""), env=runtime)
    status, out, err = litplex("validate", "/a", "[1]")
    assert (status, "`litplex scale /a auto`" in err) == (0, True), err
    assert re.search(r"load +\S+ +\+1\d\d\.\d MB\n", out), out
    assert re.search(r"unload +\S+ +-1\d\d\.\d MB +its memory is back", out), out
    assert "the same answers" in out
    status, out, _ = litplex("validate", "/a")
    assert status == 2, "it has no example"
    for path in ("/a", "/b"):
        assert server.post(path, json=1).status_code == 200
    status, out, err = litplex("fit")
    assert (status, err) == (0, ""), err
    assert re.search(r"memory: \S+ MB of 300\.0 MB; one worker of each needs", out), out
    assert re.search(r"/a +\S+ MB +measured .*is in memory", out), out
    assert re.search(r"/c .*(in the place of /[ab]|beside the others|waits)", out), out
    plan = json.loads(litplex("fit", "--json")[1])
    assert [each["endpoint"] for each in plan["endpoints"]] == ["/a", "/b", "/c"]
    assert server.stop() == 0
    server = serve(random + rest.format(servers=text, options=""), env=runtime)
    status, out, err = litplex("validate", "/b", "[1]")
    assert (status, "the answers differ" in out) == (1, True)
    assert "randomness" in err
    assert server.stop() == 0


CHATS = """
    class Chat(ls.LitAPI):
        def predict(self, prompt):
            yield "hello"

    if __name__ == "__main__":
        ls.run_servers(
            *[
                ls.LitServer(
                    Chat(spec=ls.OpenAISpec()),
                    path="/v1/chat/completions",
                    name=name,
                    min_workers=0,
                    max_workers=1,
                    preload=[],
                )
                for name in ("one", "two")
            ],
            port=0,
        )
"""


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_chat_model_that_sleeps_is_listed_and_woken(serve, name):
    server = serve(CHATS)
    assert server.workers() == []
    listed = server.client.get("/v1/models").json()["data"]
    assert {"one", "two"} <= {model["id"] for model in listed}
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
    answer = server.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.text)["choices"][0]["message"]["content"] == "hello"
    assert len(server.workers()) == 1
    assert server.stop() == 0
