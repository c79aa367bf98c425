"""Calls that wait for each other: the newest is refused at once, and no other call is.

Requests have 20 seconds: one that is answered with 508 did not wait for its deadline.
"""

import json
import re
import threading

import pytest
from conftest import wait_until

SERVER = """
    import os, time
    from concurrent.futures import ThreadPoolExecutor

    def meet(name, others):
        # Returns once as many hooks as `others` says are here.
        open(f"{name}.{os.getpid()}.{time.monotonic_ns()}", "w").close()
        wait_for(lambda: sum(file.startswith(name + ".") for file in os.listdir(".")) >= others)

    def wait_for(condition):
        while not condition():
            time.sleep(0.005)

    class Deep(ls.LitAPI):
        # Calls itself `depth` times, one in the other.
        def predict(self, depth):
            return self.call(self.own, depth - 1) + 1 if depth else 0

    class AsyncDeep(ls.LitAPI):
        async def predict(self, depth):
            return await self.acall(self.own, depth - 1) + 1 if depth else 0

    class Batched(ls.LitAPI):
        # Each item calls an endpoint, all at once.
        def predict(self, paths):
            calls = [ls.endpoint(path).later(0) for path in paths]
            return ls.gather(*calls)

    class Decodes(ls.LitAPI):
        # Decodes a path by a call of it. A batch begins when it is full.
        def decode_request(self, path):
            return self.call(path, []) if path else "no call"

        def predict(self, batch):
            return batch

    class To(ls.LitAPI):
        # Calls the first path of a list with the rest of it.
        def predict(self, paths):
            return self.call(paths[0], paths[1:]) if paths else "end"

    class Catches(To):
        def predict(self, paths):
            try:
                return self.call(paths[0], paths[1:])
            except ls.CallError as error:
                return [error.status, error.calls, error.detail]

    class Later(To):
        def predict(self, paths):
            call = ls.endpoint(paths[0]).later(paths[1:]) if paths else None
            return call.result() if paths[1:] else "not waited for"

    class Streams(ls.LitAPI):
        def predict(self, path):
            yield "first"
            yield str(self.call(path, [])) if path else "second"

    class Reads(ls.LitAPI):
        # Reads the stream of an endpoint, whose hook calls a path after its first item.
        def predict(self, command):
            if not command:
                return "no call"
            callee, form, x = command
            if form == "whole":
                return self.call(callee, x)
            items = ls.endpoint(callee).stream(x)
            if form == "first":
                return [next(iter(items))]
            if form == "threads":
                with ThreadPoolExecutor() as pool:
                    return list(pool.map(list, [items]))
            return list(items)

    class AsyncReads(ls.LitAPI):
        async def predict(self, command):
            callee, x = command or (None, None)
            return [item async for item in ls.endpoint(callee).astream(x)] if command else "no call"

    class Chat(ls.LitAPI):
        def predict(self, request):
            yield "first"
            path = request.messages[0].content
            yield str(self.call(path, "")) if path else "second"

    class Meets(ls.LitAPI):
        # Calls a path once the other endpoint's hook runs, too.
        def predict(self, path):
            if not path:
                return "answered"
            meet("meeting", 2)
            return self.call(path, "")

    class Holds(ls.LitAPI):
        def predict(self, command):
            kind, _, name = command.partition(":")
            if kind == "call":
                open("calls", "w").close()
                return self.call("/holds", "answer")
            if kind in ("hold", "late"):
                open(f"{name}.held", "w").close()
                wait_for(lambda: os.path.exists(f"{name}.released"))
            return self.call("/holds", "answer") if kind == "late" else "done"

    class Sequences(ls.ContinuousAPI):
        # The hooks of all sequences share a thread.
        def admit(self, path, context):
            return self.call(path, "") if path else "end"

        def step(self, sequences):
            return [ls.Last(sequence) for sequence in sequences]

    def own(api, path):
        api.own = path
        return api

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(own(Deep(), "/one"), path="/one", timeout=20),
            ls.LitServer(own(Deep(), "/two"), path="/two", workers_per_device=2, timeout=20),
            ls.LitServer(own(Deep(), "/elastic"), path="/elastic", min_workers=1, max_workers=2,
                         timeout=20),
            ls.LitServer(own(AsyncDeep(max_concurrency=3), "/async"), path="/async", timeout=20),
            ls.LitServer(Batched(max_batch_size=4), path="/batched", timeout=20),
            ls.LitServer(Decodes(max_batch_size=2, batch_timeout=15), path="/decodes", timeout=20),
            ls.LitServer(Sequences(max_batch_size=4), path="/sequences", timeout=20),
            ls.LitServer(To(), path="/a", timeout=20),
            ls.LitServer(To(), path="/b", timeout=20),
            ls.LitServer(To(), path="/c", workers_per_device=2, timeout=20),
            ls.LitServer(Catches(), path="/catches", timeout=20),
            ls.LitServer(Later(), path="/later", timeout=20),
            ls.LitServer(Streams(stream=True), path="/streams", timeout=20),
            ls.LitServer(Chat(spec=ls.OpenAISpec()), path="/chat", timeout=20),
            ls.LitServer(ls.Pipeline(ls.step("/streams")), path="/relays", timeout=20),
            ls.LitServer(
                ls.Pipeline(ls.step("/streams"), ls.step("/a", input=[])),
                path="/collects", timeout=20,
            ),
            ls.LitServer(Reads(), path="/reads", timeout=20),
            ls.LitServer(AsyncReads(max_concurrency=1), path="/async-reads", timeout=20),
            ls.LitServer(Meets(), path="/left", timeout=20),
            ls.LitServer(Meets(), path="/right", timeout=20),
            ls.LitServer(Holds(), path="/holds", timeout=20),
            port=0,
        )
"""


@pytest.fixture
def server(serve, runtime):
    return serve(SERVER, env=runtime)


def refused(response, chain):
    """Returns whether a response is the refusal of calls with this chain."""
    return response.status_code == 508 and f"deadlock: `{chain}`" in response.text


def test_calls_that_wait_for_each_other_are_refused_and_no_others(server, tmp_path, litplex):
    post = lambda path, body: server.post(path, json=body)  # noqa: E731

    # One worker that calls itself; with two workers, one call deep is safe.
    assert post("/one", 0).json() == 0
    response = post("/one", 1)
    assert refused(response, "/one#0 → /one"), response.text
    assert post("/two", 1).json() == 1
    response = post("/two", 2)
    assert response.status_code == 508
    assert re.search("deadlock: `/two#[01] → /two#[01] → /two`", response.text), response.text
    # A worker that can start is waited for.
    assert post("/elastic", 1).json() == 1
    assert post("/elastic", 2).status_code == 508

    # An async worker is stuck when all its places wait.
    assert post("/async", 2).json() == 2
    assert refused(post("/async", 3), "/async#0 → /async#0 → /async#0 → /async")

    # Two endpoints; an idle worker of one of them does not help.
    assert post("/a", ["/b"]).json() == "end"
    assert refused(post("/a", ["/b", "/a"]), "/a#0 → /b#0 → /a")
    response = post("/a", ["/c", "/a"])
    assert response.status_code == 508
    assert "/a#0 → /c#" in response.text
    assert post("/c", ["/a", "/c"]).json() == "end"

    # The caller that catches the refusal goes on.
    status, calls, detail = post("/catches", ["/a", "/catches"]).json()
    assert status == 508
    assert calls[0] == "/catches#0"
    assert "/catches#0 → /a#0 → /catches" in detail

    # A call in the background counts from the wait for it.
    assert post("/later", ["/later"]).json() == "not waited for"
    assert refused(post("/later", ["/later", "/a"]), "/later#0 → /later")

    # Batches, whose items call at once.
    assert post("/batched", "/one").json() == 0
    assert refused(post("/batched", "/batched"), "/batched#0 → /batched")

    # Sequences, which one thread computes.
    assert post("/sequences", "").status_code == 200
    assert refused(post("/sequences", "/sequences"), "/sequences#0 → /sequences")

    # All are as they were.
    for path in ("/one", "/two", "/async"):
        assert post(path, 0).json() == 0


def test_streams_whose_next_part_waits_for_their_reader_are_refused(server):
    post = lambda path, body: server.post(path, json=body)  # noqa: E731

    def chat(content, stream):
        return {
            "model": "chat",
            "messages": [{"role": "user", "content": content}],
            "stream": stream,
        }

    for form in ("items", "whole", "threads"):
        response = post("/reads", ["/streams", form, "/reads"])
        assert refused(response, "/reads#0 → /streams#0 → /reads"), (form, response.text)
        for callee, path in (("/relays", "/relays → /streams#0"), ("/chat", "/chat → /chat#0")):
            x = "/reads" if callee == "/relays" else chat("/reads", form != "whole")
            response = post("/reads", [callee, form, x])
            assert refused(response, f"/reads#0 → {path} → /reads"), (callee, form, response.text)
    response = post("/reads", ["/collects", "items", "/reads"])
    assert refused(response, "/reads#0 → /collects → /streams#0 → /reads"), response.text
    response = post("/async-reads", ["/streams", "/async-reads"])
    assert refused(response, "/async-reads#0 → /streams#0 → /async-reads"), response.text

    # A hook that does not read on is not waited for.
    assert post("/reads", ["/streams", "first", "/reads"]).json() == ["first"]
    # A stream that does not need its reader.
    for form in ("items", "whole"):
        assert post("/reads", ["/streams", form, "/a"]).json() == ["first", "end"]
        assert post("/reads", ["/relays", form, "/a"]).json() == ["first", "end"]
    assert post("/async-reads", ["/streams", "/a"]).json() == ["first", "end"]
    assert post("/reads", ["/collects", "items", "/a"]).json() == ["end"]
    assert post("/reads", []).json() == "no call"


def test_a_batch_waits_for_the_call_that_decodes_one_of_its_items(server):
    def both(first, second):
        answers = {}

        def post(path, body):
            answers[path, str(body)] = server.post(path, json=body)

        threads = [threading.Thread(target=post, args=pair) for pair in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answers[path, str(body)] for path, body in (first, second)]

    waiting, decoding = both(("/a", ["/decodes"]), ("/decodes", "/a"))
    assert waiting.json() == "no call"
    assert refused(decoding, "/a#0 → /decodes#0 → /a"), decoding.text
    own, other = both(("/decodes", "/decodes"), ("/decodes", ""))
    assert other.json() == "no call"
    assert refused(own, "/decodes#0 → /decodes"), own.text


def test_of_two_requests_that_meet_one_is_refused_and_the_other_answered(server):
    answers = {}

    def post(path, other):
        answers[path] = server.post(path, json=other)

    pairs = (("/left", "/right"), ("/right", "/left"))
    threads = [threading.Thread(target=post, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers.values()) == [200, 508]
    response = next(answer for answer in answers.values() if answer.status_code == 508)
    assert "/left#0" in response.text
    assert "/right#0" in response.text


def holding(server, tmp_path):
    """Returns the answers by name, and functions that begin a request and wait for a file."""
    answers = {}

    def begin(name, command):
        def post():
            answers[name] = server.post("/holds", json=command)

        thread = threading.Thread(target=post)
        thread.start()
        return thread

    def wait_for(file):
        wait_until(lambda: (tmp_path / file).exists())

    return answers, begin, wait_for


def test_a_worker_less_closes_a_deadlock(server, litplex, tmp_path):
    answers, begin, wait_for = holding(server, tmp_path)

    def ready():
        status, out, err = litplex("ps", "--json")
        assert status == 0, err
        [holds] = [e for e in json.loads(out)["endpoints"] if e["path"] == "/holds"]
        return [worker["slot"] for worker in holds["workers"] if worker["state"] == "ready"]

    # Of workers that hold as many jobs, the one that was there first gets the next.
    assert litplex("scale", "/holds", "2")[0] == 0
    wait_until(lambda: sorted(ready()) == [0, 1])
    first = begin("first", "hold:first")
    wait_for("first.held")
    second = begin("second", "hold:second")
    wait_for("second.held")
    (tmp_path / "first.released").touch()
    first.join()
    caller = begin("caller", "call:")
    wait_for("calls")
    assert litplex("scale", "/holds", "1")[0] == 0
    caller.join()
    (tmp_path / "second.released").touch()
    second.join()
    assert answers["second"].status_code == 200
    assert refused(answers["caller"], "/holds#0 → /holds"), answers["caller"].text


def test_a_deadlock_in_one_generation_is_found_while_another_one_is_there(
    server, tmp_path, litplex
):
    answers, begin, wait_for = holding(server, tmp_path)

    # The old worker computes, and serves no call of the new generation.
    old = begin("old", "hold:old")
    wait_for("old.held")
    status, _, err = litplex("reload", "/holds")
    assert status == 0, err
    response = server.post("/holds", json="call:")
    assert refused(response, "/holds#0 → /holds"), response.text
    (tmp_path / "old.released").touch()
    old.join()
    assert answers["old"].status_code == 200

    # In place, new workers start when the hook that waits for them has ended.
    late = begin("late", "late:late")
    wait_for("late.held")
    reloading = threading.Thread(target=litplex, args=("reload", "/holds", "--in-place"))
    reloading.start()
    wait_until(lambda: "generation 3 of /holds is starting" in litplex("events")[1])
    other = begin("other", "")
    (tmp_path / "late.released").touch()
    late.join()
    assert refused(answers["late"], "/holds#0 → /holds"), answers["late"].text
    reloading.join()
    other.join()
    assert answers["other"].json() == "done"


DECLARED = """
    class First(ls.LitAPI):
        second = ls.endpoint("/second")

        def predict(self, x):
            return self.second(x)

    class Second(ls.LitAPI):
        first = ls.endpoint("FIRST")

        def predict(self, x):
            return self.first(x) if x else x

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(First(), path="/first", workers_per_device=3),
            ls.LitServer(Second(max_concurrency=1), path="/second", workers_per_device=2),
            port=0,
        )
"""


def test_cycles_of_declared_calls_are_named_at_the_start_and_by_the_check(serve, litplex, script):
    program = DECLARED.replace("FIRST", "/first")
    server = serve(program)
    status, said, err = litplex("check", str(script(program)))
    assert status == 0, err
    for text in (server.output, said):
        assert "cycle of calls `/first → /second → /first`: `/second` computes 2" in text
