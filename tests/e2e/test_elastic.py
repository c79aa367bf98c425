"""Workers that follow load and the operator's hand, while requests go on."""

import json
import threading
import time

import httpx
import pytest
from conftest import is_alive, wait_until

SERVER = """
    import os, time

    class Work(ls.LitAPI):
        def predict(self, seconds):
            time.sleep(seconds)
            return os.getpid()

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Work(), path="/a"),
            ls.LitServer(Work(), path="/elastic", min_workers=1, max_workers=3, timeout=20),
            ls.LitServer(Work(), path="/sleeps", min_workers=0, max_workers=2, timeout=20),
            port=0,
        )
"""


@pytest.fixture
def endpoint(litplex):
    """Returns the output of `litplex ps --json` for an endpoint."""

    def ask(path):
        status, out, err = litplex("ps", "--json")
        assert status == 0, err
        told = json.loads(out)
        return next(e for e in told["endpoints"] if e["path"] == path)

    return ask


def ready(endpoint):
    return [worker["pid"] for worker in endpoint["workers"] if worker["state"] == "ready"]


class Senders:
    """Threads that send one request after the other, and the answers."""

    def __init__(self, server, path, count, seconds=0.05):
        self.answers: list[httpx.Response] = []
        self.broken: list[Exception] = []
        self._done = threading.Event()
        self._args = (server, path, seconds)
        self._threads = [threading.Thread(target=self._send) for _ in range(count)]

    def _send(self):
        server, path, seconds = self._args
        while not self._done.is_set():
            try:
                self.answers.append(server.post(path, json=seconds))
            except httpx.HTTPError as error:
                self.broken.append(error)

    def check(self):
        assert self.broken == []
        assert [a.text for a in self.answers if a.status_code != 200] == []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        for thread in self._threads:
            thread.join(60)


def test_workers_grow_with_load_and_all_of_them_work(serve, runtime, endpoint):
    server = serve(SERVER, env=runtime)
    assert len(ready(endpoint("/elastic"))) == 1
    with Senders(server, "/elastic", 12) as senders:
        wait_until(lambda: len(ready(endpoint("/elastic"))) == 3)
        before = len(senders.answers)
        wait_until(lambda: len({a.json() for a in senders.answers[before:]}) == 3)
        # The limit holds under any load.
        time.sleep(1)
        assert endpoint("/elastic")["wanted"] == 3
        assert len(server.workers()) <= 5
    senders.check()
    assert server.stop() == 0


def test_scaling_by_hand_loses_no_request(serve, runtime, litplex, endpoint):
    server = serve(SERVER, env=runtime)
    with Senders(server, "/a", 6) as senders:
        for count in (3, 1, 4, 2):
            assert litplex("scale", "/a", str(count))[0] == 0
            wait_until(lambda count=count: len(ready(endpoint("/a"))) == count)
            wait_until(lambda count=count: len(endpoint("/a")["workers"]) == count)
            before = len(senders.answers)
            wait_until(lambda before=before: len(senders.answers) > before + 20)
            senders.check()
    senders.check()
    assert ": gone: " not in server.output


def test_a_worker_that_is_removed_finishes_what_it_has(serve, runtime, litplex, endpoint):
    server = serve(SERVER, env=runtime)
    assert litplex("scale", "/a", "3")[0] == 0
    wait_until(lambda: len(ready(endpoint("/a"))) == 3)
    workers = ready(endpoint("/a"))
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.post("/a", json=3))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: endpoint("/a")["in_flight"] == 3)
    assert litplex("scale", "/a", "1")[0] == 0
    for thread in threads:
        thread.join(60)
    assert sorted(answer.json() for answer in answers) == sorted(workers)
    wait_until(lambda: sum(map(is_alive, workers)) == 1)


def test_an_endpoint_scaled_to_none_sleeps_until_a_request_comes(serve, runtime, litplex, endpoint):
    server = serve(SERVER, env=runtime)
    for path, scaled in (("/a", 0), ("/elastic", 0)):
        (worker,) = ready(endpoint(path))
        assert litplex("scale", path, str(scaled))[0] == 0
        wait_until(lambda worker=worker: not is_alive(worker))
        assert (endpoint(path)["state"], endpoint(path)["wanted"]) == ("asleep", 0)
        assert "the next request waits" in litplex("top", "--json")[1]
        assert server.client.get("/health").status_code == 200, "nothing is wrong"
        assert server.post(path, json=0).status_code == 200
        assert (endpoint(path)["state"], endpoint(path)["wanted"]) == ("ready", 1)
    for line in ("asleep: it was scaled to none by hand", "wakes: a request waits"):
        wait_until(lambda line=line: server.output.count(line) == 2, lambda: server.output)


def test_a_number_by_hand_is_given_back(serve, runtime, litplex, endpoint):
    serve(SERVER, env=runtime)
    for path, limits in (("/a", None), ("/elastic", (1, 3)), ("/sleeps", (0, 2))):
        for number in (2, 0, "auto"):
            status, out, err = litplex("scale", path, str(number), "--json")
            assert (status, err) == (0, "")
        wanted = json.loads(out)["wanted"]
        assert wanted == (1 if limits is None else limits[0])
        wait_until(lambda path=path, wanted=wanted: len(ready(endpoint(path))) == wanted)
    status, _, err = litplex("scale", "/a", "atuo")
    assert (status, "expected a number from 0 to 1024, cold, or auto" in err) == (2, True)


def test_an_endpoint_without_workers_starts_one_for_a_request(serve, runtime, endpoint):
    server = serve(SERVER, env=runtime)
    assert endpoint("/sleeps")["wanted"] in (0, 1)
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(server.post("/sleeps", json=1)))
    thread.start()
    # Once it has answered, the worker may end.
    seen: set = set()
    while thread.is_alive():
        seen.update(server.workers())
    (response,) = answers
    assert (response.status_code, response.json() in seen) == (200, True)
