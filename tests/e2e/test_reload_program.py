"""A reload of the whole program: options, endpoints that come and go, errors, and signals."""

import json
import os
import signal
import sys
import threading

import pytest
from conftest import LITPLEX, Server, wait_until

MODELS = """
    import time

    class Echo(ls.LitAPI):
        def __init__(self, word="echo", fails=False):
            self.word = word
            self.fails = fails

        def setup(self, device):
            if self.fails:
                raise OSError("no weights")

        def predict(self, x):
            return [self.word, x]

    class Stream(ls.LitAPI):
        def predict(self, n):
            for i in range(n):
                time.sleep(0.05)
                yield i

    class Caller(ls.LitAPI):
        callee = ls.endpoint("/callee")

        def predict(self, x):
            return self.callee(x)

    class Finder(ls.LitAPI):
        def predict(self, path):
            try:
                return ls.endpoint(path)(1)
            except ls.CallError as error:
                return [error.status, error.detail]
"""


def endpoint(path, api="models.py:Echo", **options):
    lines = [f"{name} = {value}" for name, value in options.items()]
    return "\n".join(["[[endpoint]]", f'path = "{path}"', f'api = "{api}"', *lines, ""])


@pytest.fixture
def write_toml(tmp_path, script):
    """Returns a function that writes the configuration: options of the server, then endpoints."""
    script(MODELS, name="models.py")

    def write(*endpoints, server=""):
        (tmp_path / "litplex.toml").write_text("\n".join([f"port = 0\n{server}", *endpoints]))

    return write


@pytest.fixture
def serve_toml(run, runtime):
    def start(**env):
        server = run([LITPLEX, "serve", "litplex.toml"], kind=Server, env={**runtime, **env})
        return server.wait_until_ready()

    return start


@pytest.fixture
def reload(litplex):
    """Returns a function that reloads the program, and returns the changes by endpoint."""

    def run(*args, status=0):
        code, out, err = litplex("reload", "--json", *args)
        assert code == status, (out, err)
        answer = json.loads(out)
        plan = {it["endpoint"]: it for it in answer["plan"]["endpoints"]}
        results = {it["endpoint"]: it for it in answer["results"]}
        return answer, plan, results

    return run


@pytest.fixture
def endpoints(litplex):
    def show():
        shown = json.loads(litplex("ps", "--json")[1])
        return {it["path"]: it for it in shown["endpoints"]}

    return show


def pids(endpoint):
    return [worker["pid"] for worker in endpoint["workers"]]


def test_only_what_changed_is_reloaded(write_toml, serve_toml, litplex, reload, endpoints):
    stays = endpoint("/stays")
    write_toml(stays, endpoint("/options"), endpoint("/model"))
    server = serve_toml(KEY="secret")
    before = endpoints()
    status, out, _ = litplex("reload", "--dry-run")
    assert (status, out.startswith("nothing changes")) == (0, True), out
    answer, plan, results = reload()
    assert {it["change"] for it in plan.values()} == {"unchanged"}
    assert (results, answer["plan"]["app"]) == ({}, False)

    write_toml(
        stays,
        endpoint("/options", timeout=7, max_queue=3, api_keys='{ ann = "env:KEY" }'),
        endpoint("/model", args='{ word = "new" }', max_body_bytes=100),
        server="request_id = true",
    )
    status, out, _ = litplex("reload", "--dry-run")
    assert status == 0
    for line in ("options    /options", "timeout: 30s → 7s", "api_keys: not set → ann=…"):
        assert line in out, out
    for line in ("reload     /model", "args: … → …", "max_body_bytes: 67108864 → 100"):
        assert line in out, out
    assert "restart    the server" in out and "request_id: false → true" in out, out
    assert "secret" not in out and "/stays" not in out, out
    assert endpoints()["/model"]["generations"][-1]["generation"] == 1
    assert server.post("/options", json=1).json() == ["echo", 1]

    _, plan, results = reload()
    assert [plan[path]["change"] for path in before] == ["unchanged", "options", "reload"]
    assert (results["/model"]["generation"], results["/options"].get("generation")) == (2, None)
    after = endpoints()
    assert pids(after["/stays"]) == pids(before["/stays"])
    assert pids(after["/options"]) == pids(before["/options"])
    assert pids(after["/model"]) != pids(before["/model"])
    assert server.post("/stays", json=1).json() == ["echo", 1]
    assert server.post("/model", json=1).json() == ["new", 1]
    assert server.post("/model", json="x" * 200).status_code == 413
    assert server.post("/options", json=1).status_code == 401
    answer = server.post("/options", json=1, headers={"x-api-key": "secret"})
    assert (answer.json(), server.client.get("/info").json()["endpoints"][1]["timeout"]) == (
        ["echo", 1],
        7.0,
    )
    # Reload of one endpoint: with its present configuration.
    write_toml(stays, endpoint("/options", timeout=8), endpoint("/model", args='{ word = "one" }'))
    status, _, err = litplex("reload", "/model")
    assert status == 0, err
    assert server.post("/model", json=1).json() == ["one", 1]
    assert server.post("/options", json=1).status_code == 401
    _, plan, _ = reload()
    assert (plan["/model"]["change"], plan["/options"]["change"]) == ("unchanged", "options")
    assert server.post("/options", json=1).status_code == 200


def test_a_longer_timeout_is_for_the_workers_that_run(write_toml, serve_toml, reload, script):
    script(
        """
        import time

        class Slow(ls.LitAPI):
            def predict(self, x):
                time.sleep(x)
                return "done"
        """,
        name="slow.py",
    )
    write_toml(endpoint("/slow", "slow.py:Slow", timeout=0.5, kill_after=0.5))
    server = serve_toml()
    assert server.post("/slow", json=0.8).status_code == 504
    write_toml(endpoint("/slow", "slow.py:Slow", timeout=10, kill_after=0.5))
    _, plan, _ = reload()
    assert plan["/slow"]["change"] == "options"
    assert server.post("/slow", json=2).json() == "done"


def test_endpoints_come_and_go(write_toml, serve_toml, litplex, reload, endpoints):
    stays, finder = endpoint("/stays"), endpoint("/finder", "models.py:Finder")
    write_toml(stays, finder)
    server = serve_toml()
    before = endpoints()
    assert server.post("/new", json=1).status_code == 404
    stream = endpoint("/stream", "models.py:Stream", stream="true")
    pipeline = '[[endpoint]]\npath = "/pipe"\npipeline = ["/new"]\n'
    write_toml(endpoint("/new", name='"fresh"'), stays, stream, finder, pipeline)
    _, plan, results = reload()
    added = [path for path, it in plan.items() if it["change"] == "added"]
    assert added == ["/new", "/stream", "/pipe"]
    assert all("error" not in it for it in results.values())
    after = endpoints()
    assert list(after) == ["/new", "/stays", "/stream", "/finder", "/pipe"]
    assert pids(after["/stays"]) == pids(before["/stays"])
    assert server.post("/new", json=1).json() == ["echo", 1]
    assert server.post("/pipe", json=2).json() == ["echo", 2]
    assert server.post("/finder", json="fresh").json() == ["echo", 1]
    info = server.client.get("/info").json()
    assert [it["path"] for it in info["endpoints"]] == list(after)
    assert "/new" in server.client.get("/openapi.json").json()["paths"]
    assert 'litplex_inflight_requests{endpoint="/new"}' in metrics(server)
    wait_until(lambda: "/new" in litplex("top", "--json")[1])
    assert "/new is reloaded: added" in litplex("events")[1]

    with server.client.stream("POST", "/stream", json=40) as answer:
        items = answer.iter_lines()
        first = next(items)
        write_toml(stays, finder)
        _, plan, results = reload()
        gone = [path for path, it in plan.items() if it["change"] == "removed"]
        assert gone == ["/new", "/stream", "/pipe"]
        assert list(endpoints()) == ["/stays", "/finder"]
        for path in gone:
            assert server.post(path, json=1).status_code == 404, path
        # The stream that is open over the removal comes to its end.
        rest = [json.loads(line) for line in items if line]
    assert [json.loads(first), *rest] == list(range(40))
    status, reason = server.post("/finder", json="/new").json()
    assert (status, "there is no endpoint `/new`" in reason) == (404, True), reason
    wait_until(lambda: len(server.workers()) == 2)
    assert "/new" not in server.client.get("/openapi.json").json()["paths"]
    assert list(server.client.get("/info").json()["graph"]["nodes"][0]) != []
    # An endpoint can come back.
    write_toml(stays, finder, endpoint("/new", args='{ word = "again" }'))
    reload()
    assert server.post("/new", json=1).json() == ["again", 1]


def test_what_is_wrong_leaves_everything_as_it_was(
    write_toml, serve_toml, litplex, reload, endpoints, tmp_path
):
    caller, callee = endpoint("/caller", "models.py:Caller"), endpoint("/callee")
    write_toml(caller, callee)
    server = serve_toml()
    before = endpoints()
    for text, reason in (
        ("port = = 1", "litplex.toml: TOML parse error at line 1, column 8"),
        (caller + endpoint("/x", wokers=3), "endpoint `/x`: there is no option `wokers`"),
        (caller + callee + endpoint("/x", "gone.py:X"), "which does not exist"),
        (caller + callee + endpoint("/x", api_keys='{ a = "env:NO_KEY" }'), "NO_KEY"),
        (caller, "endpoint `/caller`: a call that it declares cannot be made"),
        (caller + callee + endpoint("/x", log_file='"x.log"'), "needs a restart of the server"),
    ):
        (tmp_path / "litplex.toml").write_text(text)
        for args in (("--dry-run",), (), ("--json",), ("/callee",)):
            if args == ("/callee",) and "restart" in reason + text:
                continue
            status, out, err = litplex("reload", *args)
            if args == ("/callee",) and status == 0:
                continue
            assert (status, out) == (1, ""), (args, out, err)
            assert reason in err or args == ("/callee",), err
        assert server.post("/caller", json=1).json() == ["echo", 1]
    shown = json.loads(litplex("ps", "--json")[1])
    assert "needs a restart of the server" in shown["failed_reload"]["reason"]
    assert "the last reload failed" in litplex("ps")[1]
    assert pids(endpoints()["/caller"]) == pids(before["/caller"])

    # A part that fails stays as it was; the others go on.
    write_toml(
        caller,
        endpoint("/callee", args="{ fails = true }"),
        endpoint("/broken", args="{ fails = true }"),
        endpoint("/good", args='{ word = "good" }'),
    )
    _, _, results = reload(status=1)
    assert "no weights" in results["/callee"]["error"]
    assert "no weights" in results["/broken"]["error"]
    assert "error" not in results["/good"]
    assert list(endpoints()) == ["/caller", "/callee", "/good"]
    assert server.post("/good", json=1).json() == ["good", 1]
    assert server.post("/caller", json=1).json() == ["echo", 1]
    assert server.post("/broken", json=1).status_code == 404
    info = {it["path"]: it for it in server.client.get("/info").json()["endpoints"]}
    live, failed = (info["/callee"][name] for name in ("generation", "failed_generation"))
    assert failed["generation"] == live + 1
    assert "no weights" not in failed["reason"]
    # What failed is tried again.
    write_toml(caller, callee, endpoint("/broken"), endpoint("/good", args='{ word = "good" }'))
    _, plan, _ = reload()
    assert (plan["/broken"]["change"], plan["/good"]["change"]) == ("added", "unchanged")
    assert server.post("/broken", json=1).json() == ["echo", 1]
    assert json.loads(litplex("ps", "--json")[1])["failed_reload"] is None
    status, _, err = litplex("reload", "/callee", "--dry-run")
    assert (status, "cannot be used with" in err) == (2, True), err


KINDS = """
    import threading

    class First(ls.LitAPI):
        def __init__(self, word):
            self.word = word

        def predict(self, x):
            return ["first", self.word]

    class Second(ls.LitAPI):
        def predict(self, x):
            return "second"

    class Third(ls.LitAPI):
        def __init__(self):
            self.lock = threading.Lock()  # It cannot be pickled: each worker runs the program.

        def predict(self, x):
            return "third"
"""
PROGRAM = """
    from kinds import First, Second, Third

    if __name__ == "__main__":
        ls.run_servers({servers}, port=0)
"""
FIRST = 'ls.LitServer(First({word!r}), path="/first", max_queue={limit})'
SECOND = 'ls.LitServer(Second(), path="/second")'
THIRD = 'ls.LitServer(Third(), path="/third")'


@pytest.mark.parametrize("way", ["python server.py", "litplex serve server.py"])
def test_a_program_is_run_again(way, run, runtime, script, litplex, reload, endpoints):
    script(KINDS, name="kinds.py")

    def write(*servers):
        return script(PROGRAM.format(servers=", ".join(servers)))

    def first(word="one", limit=30):
        return FIRST.format(word=word, limit=limit)

    file = write(first(), THIRD)
    commands = {
        "python server.py": [sys.executable, "server.py"],
        "litplex serve server.py": [LITPLEX, "serve", file, "--python", sys.executable],
    }
    server = run(commands[way], kind=Server, env=runtime).wait_until_ready()
    before = endpoints()
    _, plan, _ = reload()
    assert {it["change"] for it in plan.values()} == {"unchanged"}, plan

    # In another order, with one more, and with an option that needs no worker.
    write(SECOND, THIRD, first(limit=9))
    _, plan, _ = reload()
    assert {path: it["change"] for path, it in plan.items()} == {
        "/second": "added",
        "/third": "reload",
        "/first": "options",
    }
    # Its workers have run the program.
    assert plan["/third"]["files"] == [str(file)]
    after = endpoints()
    assert pids(after["/first"]) == pids(before["/first"])
    assert server.post("/second", json=1).json() == "second"
    # A worker that starts later finds its model at its path.
    for path, answer in (("/third", "third"), ("/first", ["first", "one"])):
        (pid,) = pids(after[path])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda path=path, pid=pid: pids(endpoints()[path]) not in ([pid], [None]))
        wait_until(lambda path=path: server.post(path, json=1).status_code == 200)
        assert server.post(path, json=1).json() == answer

    # An instance that was made otherwise is another model.
    write(SECOND, THIRD, first("two", 9))
    _, plan, results = reload()
    assert (plan["/first"]["change"], results["/first"]["generation"]) == ("reload", 2)
    assert server.post("/first", json=1).json() == ["first", "two"]

    for text, reason in (
        (PROGRAM.format(servers="Unknown()"), "NameError: name 'Unknown' is not defined"),
        ("this is no Python", "SyntaxError"),
        (
            PROGRAM.format(servers='ls.LitServer(Second(), path="/second", max_queue=-1)'),
            "`max_queue` must be",
        ),
    ):
        file = script(text)
        status, out, err = litplex("reload")
        assert (status, out, reason in err) == (1, "", True), (text, out, err)
        assert "server.py" in err or "endpoint `/second`" in err
    assert server.post("/first", json=1).json() == ["first", "two"]

    write(SECOND)
    server.signal(signal.SIGHUP)
    wait_until(lambda: list(endpoints()) == ["/second"])
    assert server.post("/second", json=1).json() == "second"
    script("raise KeyError('no such thing')")
    server.signal(signal.SIGHUP)
    server.wait_for_line("the reload failed: .*")
    wait_until(lambda: "KeyError: 'no such thing'" in server.output)
    assert server.post("/second", json=1).json() == "second"
    assert server.stop() == 0


CODE = """
    import helper

    class A(ls.LitAPI):
        def predict(self, x):
            return helper.VALUE

    class B(ls.LitAPI):
        def predict(self, x):
            return "b"

    class Lazy(ls.LitAPI):
        def predict(self, x):
            import lazy
            return lazy.VALUE
"""


def test_code_that_changed_is_loaded_anew(
    write_toml, serve_toml, script, litplex, reload, endpoints, tmp_path
):
    helper, lazy = tmp_path / "helper.py", tmp_path / "lazy.py"
    helper.write_text("VALUE = 1")
    lazy.write_text("VALUE = 1")
    script(CODE.replace("import helper", ""), name="others.py")
    script(CODE, name="first.py")
    script(CODE.replace("import helper", "import helper as other"), name="second.py")
    write_toml(
        endpoint("/a", "first.py:A", workers_per_device=2),
        endpoint("/second", "second:B"),
        endpoint("/b", "others.py:B"),
        endpoint("/lazy", "others.py:Lazy"),
    )
    server = serve_toml()

    def changed(status=0):
        _, plan, results = reload(status=status)
        reloaded = {path for path, it in results.items() if it["change"] == "reload"}
        assert reloaded == {path for path, it in plan.items() if it["change"] == "reload"}
        return {path: it["files"] for path, it in plan.items() if it["change"] == "reload"}

    assert changed() == {}
    before = endpoints()
    # Two saves of the same length in one second.
    for value in (2, 3):
        helper.write_text(f"VALUE = {value}")
        status, out, _ = litplex("reload", "--dry-run")
        for line in ("reload     /a", "reload     /second", f"{helper} has changed"):
            assert (status, line in out) == (0, True), out
        assert "/b" not in out and "/lazy" not in out
        assert changed() == {"/a": [str(helper)], "/second": [str(helper)]}
        assert {server.post("/a", json=0).json() for _ in range(10)} == {value}
        assert changed() == {}
    assert pids(endpoints()["/b"]) == pids(before["/b"])
    # A save that changes nothing, and one that is taken back.
    helper.write_text("VALUE = 3")
    assert changed() == {}
    helper.write_text("VALUE = 4")
    helper.write_text("VALUE = 3")
    assert changed() == {}

    # A file that a hook has loaded.
    assert server.post("/lazy", json=0).json() == 1
    lazy.write_text("VALUE = 2")
    assert changed() == {"/lazy": [str(lazy)]}
    assert server.post("/lazy", json=0).json() == 2

    # A worker that starts has loaded the new file; the other one has not.
    helper.write_text("VALUE = 5")
    killed = pids(endpoints()["/a"])[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in pids(endpoints()["/a"]))
    wait_until(lambda: {w["state"] for w in endpoints()["/a"]["workers"]} == {"ready"})
    assert changed() == {"/a": [str(helper)], "/second": [str(helper)]}
    assert {server.post("/a", json=0).json() for _ in range(10)} == {5}

    # What cannot be loaded leaves the old code, and is tried again.
    helper.write_text("VALUE = (")
    for _ in range(2):
        assert set(changed(status=1)) == {"/a", "/second"}
        assert server.post("/a", json=0).json() == 5
    helper.write_text("VALUE = 6")
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.post("/a", json=0).json() == 6)
    wait_until(lambda: json.loads(litplex("ps", "--json")[1])["failed_reload"] is None)
    helper.unlink()
    status, out, _ = litplex("reload", "--dry-run")
    assert f"{helper} has changed" in out
    assert server.post("/a", json=0).json() == 6


def test_a_model_in_the_program_itself_is_loaded_anew(serve, script, runtime, reload):
    program = """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return VALUE

        if __name__ == "__main__":
            ls.LitServer(Echo(), path="/echo").run(port=0)
    """
    server = serve(program.replace("VALUE", "1"), env=runtime)
    assert reload()[1]["/echo"]["change"] == "unchanged"
    file = script(program.replace("VALUE", "2"))
    _, plan, _ = reload()
    assert (plan["/echo"]["change"], plan["/echo"]["files"]) == ("reload", [str(file)])
    assert server.post("/echo", json=0).json() == 2
    assert reload()[1]["/echo"]["change"] == "unchanged"


FITTING = """
    from typing import List
    from pydantic import BaseModel

    import marks

    class Count(BaseModel):
        n: int

    class Named(BaseModel):
        name: str

    class Page(ls.LitAPI):
        def setup(self, device):
            marks.loaded("page")

        def decode_request(self, request: Count):
            return request.n

        def predict(self, n):
            return {"name": "x" * n}

        def encode_response(self, output) -> Named:
            return output

    class Text(ls.LitAPI):
        def setup(self, device):
            marks.loaded("text")

        def decode_request(self, request: Named):
            return request

        def predict(self, named):
            return named.name

    class Caller(ls.LitAPI):
        page = ls.endpoint("/page", returns=Named)

        def predict(self, request):
            return self.page(request).name
"""
MARKS = """
    def loaded(name):
        with open("loaded", "a") as file:
            file.write(f"{name} ")
"""
PIPE = '[[endpoint]]\npath = "/pipe"\npipeline = ["/page", "/text"]\n'


def test_a_reload_checks_what_a_start_checks(
    write_toml, serve_toml, script, litplex, endpoints, tmp_path
):
    pytest.importorskip("pydantic")
    script(MARKS, name="marks.py")
    script(FITTING, name="fitting.py")
    script(FITTING.replace('"/page", returns', '"/gone", returns'), name="wrong.py")
    page, text, caller = (
        endpoint(f"/{name.lower()}", f"fitting.py:{name}") for name in ("Page", "Text", "Caller")
    )
    other = endpoint("/other", max_queue=5)
    write_toml(page, text, caller, PIPE, other)
    server = serve_toml()
    before = endpoints()
    loads = (tmp_path / "loaded").read_text()
    number = FITTING.replace(") -> Named:", ") -> Count:")
    without = FITTING.replace('"/page", returns', '"/gone", returns')
    maps = PIPE.replace('"/text"', '{ map = "/text", over = "$response" }')
    takes_list = FITTING.replace("request: Named", "request: List[int]")
    for code, config, sentence in (
        # The steps of a pipeline, whose endpoints stay.
        (
            FITTING,
            (page, text, caller, maps),
            "pipeline of /pipe: steps[1]: ",
        ),
        # Models of which only the code changes: the callee, a step, the caller.
        (
            number,
            (page, text, caller),
            "`returns` of `self.page` does not fit what `/page` returns",
        ),
        (takes_list, (page, text, PIPE), "pipeline of /pipe: steps[1]: "),
        (
            without,
            (page, text, caller),
            "endpoint `/caller`: a call that it declares cannot be made",
        ),
        # A model that is new, and one whose callee goes.
        (FITTING, (page, text, caller, endpoint("/new", "wrong.py:Caller")), "endpoint `/new`: a"),
        (FITTING, (text, caller), "endpoint `/caller`: a call that it declares cannot be made"),
    ):
        script(code, name="fitting.py")
        write_toml(*config, endpoint("/other", max_queue=9))
        for args in (("--dry-run",), (), ("--json",)):
            status, out, err = litplex("reload", *args)
            assert (status, out, sentence in err) == (1, "", True), (args, out, err)
        assert server.post("/pipe", json={"n": 3}).json() == "xxx"
        assert server.post("/caller", json={"n": 2}).json() == "xx"
    # The whole is refused: neither an option of another endpoint is applied, nor anything loaded.
    settings = json.loads(litplex("config", "--json")[1])["endpoints"]
    options = next(it["options"] for it in settings if it["endpoint"] == "/other")
    assert [it["value"] for it in options if it["name"] == "max_queue"] == ["5"]
    assert (tmp_path / "loaded").read_text() == loads
    assert {path: pids(it) for path, it in endpoints().items()} == {
        path: pids(it) for path, it in before.items()
    }
    # A reload of one endpoint, and the signal, are checked too.
    script(number, name="fitting.py")
    write_toml(page, text, caller, PIPE, other)
    status, _, err = litplex("reload", "/page")
    assert (status, "does not fit" in err) == (1, True), err
    refused = "the reload failed: endpoint `/caller`: `returns` of `self.page` does not fit"
    count = server.output.count(refused)
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.output.count(refused) > count)
    assert server.post("/caller", json={"n": 2}).json() == "xx"
    # Where both ends change together, they fit.
    script(FITTING.replace("name", "title"), name="fitting.py")
    write_toml(page, text, PIPE, other)
    status, _, err = litplex("reload")
    assert status == 0, err
    assert server.post("/pipe", json={"n": 3}).json() == "xxx"
    info = {it["path"]: it for it in server.client.get("/info").json()["endpoints"]}
    live = [info[path]["generation"] for path in ("/page", "/text")]
    assert live == [2, 2]


def test_what_only_a_loaded_model_says_is_checked_before_it_serves(
    write_toml, serve_toml, script, litplex, endpoints
):
    """`setup` may change what `litplex check` has seen."""
    models = """
        class Late(ls.LitAPI):
            callee = ls.endpoint("/other")

            def setup(self, device):
                pass

            def predict(self, x):
                return self.callee(x)
    """
    script(models, name="late.py")
    late, other = endpoint("/late", "late.py:Late"), endpoint("/other")
    write_toml(late, other)
    server = serve_toml()
    in_setup = models.replace("pass", 'type(self).callee = ls.endpoint("/none")')
    script(in_setup, name="late.py")
    for args in ((), ("/late",), ("/late", "--canary", "50%")):
        status, out, err = litplex("reload", *args)
        assert (status, "a call that it declares cannot be made" in out + err) == (1, True), err
        assert server.post("/late", json=1).json() == ["echo", 1]
    # A new endpoint: the others stay as they were, too.
    script(models, name="late.py")
    script(in_setup, name="later.py")
    new = endpoint("/new", "later.py:Late")
    write_toml(late, endpoint("/other", max_queue=3), new, endpoint("/more"))
    status, _, err = litplex("reload")
    assert (status, "endpoint `/new`: a call that it declares" in err) == (1, True), err
    assert list(endpoints()) == ["/late", "/other"]
    assert server.post("/more", json=1).status_code == 404


def test_the_configuration_is_shown_as_it_is_served(write_toml, serve_toml, litplex, reload):
    def shown():
        settings = json.loads(litplex("config", "--json")[1])
        return {
            it["endpoint"]: {row["name"]: row["value"] for row in it["options"]}
            for it in settings["endpoints"]
        }

    write_toml(endpoint("/a", max_queue=5), endpoint("/b"), endpoint("/gone"))
    serve_toml(KEY="secret")
    assert (shown()["/a"]["max_queue"], "/gone" in shown()) == ("5", True)
    write_toml(
        endpoint("/new"),
        endpoint("/a", max_queue=6, api_keys='{ ann = "env:KEY" }'),
        endpoint("/b", args='{ word = "b" }', max_batch_size=4),
    )
    reload()
    now = shown()
    assert list(now) == ["/new", "/a", "/b"]
    assert (now["/a"]["max_queue"], now["/b"]["max_batch_size"]) == ("6", "4")
    keys = json.loads(litplex("config", "--json")[1])
    assert "ann" in json.dumps(keys)


def test_a_first_generation_is_listed_as_what_it_is(
    write_toml, run, runtime, script, litplex, tmp_path
):
    script(
        """
        import os
        import time

        class Slow(ls.LitAPI):
            def setup(self, device):
                while not os.path.exists("go"):
                    time.sleep(0.01)

            request_example = 1

            def predict(self, x):
                while not os.path.exists("warm"):
                    time.sleep(0.01)
                return x
        """,
        name="slow.py",
    )
    write_toml(endpoint("/slow", "slow.py:Slow", warmup=1))
    server = run([LITPLEX, "serve", "litplex.toml"], kind=Server, env=runtime)
    server.wait_until_listening()

    def state():
        listed = json.loads(litplex("generations", "/slow", "--json")[1])["generations"]
        return [(it["generation"], it["state"]) for it in listed]

    assert state() == [(1, "starting")]
    assert "generation 1" not in litplex("ps")[1], "its workers have rows"
    (tmp_path / "go").touch()
    wait_until(lambda: state() == [(1, "warming")])
    (tmp_path / "warm").touch()
    server.wait_until_ready()
    assert state() == [(1, "live")]


APP = """
    from starlette.middleware.base import BaseHTTPMiddleware

    class Echo(ls.LitAPI):
        def predict(self, x):
            import time
            time.sleep(x)
            return x

    class Mark(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["x-mark"] = {mark!r}
            return response

    def server(path):
        return ls.LitServer(Echo(), path=path, middlewares=[Mark])

    if __name__ == "__main__":
        servers = [server(path) for path in {paths!r}]

        @servers[0].app.get("/hello")
        def hello():
            return {mark!r}

        ls.run_servers(*servers, port=0)
"""


def test_an_app_host_is_replaced_with_its_program(serve, runtime, script, litplex, reload):
    pytest.importorskip("fastapi")
    server = serve(APP.format(mark="one", paths=["/b", "/c"]), env=runtime)
    (host,) = server.app_hosts()
    reload()
    assert server.app_hosts() == [host]
    slow = []
    thread = threading.Thread(target=lambda: slow.append(server.post("/c", json=3)))
    thread.start()
    wait_until(lambda: 'litplex_inflight_requests{endpoint="/c"} 1' in metrics(server))
    script(APP.format(mark="two", paths=["/a", "/b", "/c"]))
    answer, plan, _ = reload()
    assert answer["plan"]["app"]
    assert plan["/a"]["change"] == "added"
    for path in ("/a", "/b", "/c"):
        answer = server.post(path, json=0)
        assert (answer.json(), answer.headers["x-mark"]) == (0, "two"), path
    assert server.client.get("/hello").json() == "two"
    # The request that began before is answered through the app host that it began with.
    thread.join()
    assert (slow[0].json(), slow[0].headers["x-mark"]) == (3, "one")
    wait_until(lambda: host not in server.app_hosts())
    fails = 'import sys; assert "litplex._apphost._process" not in sys.modules, "no app"'
    script(APP.format(mark="three", paths=["/b"]).replace("servers = [", f"{fails}; servers = ["))
    status, _, err = litplex("reload")
    assert status == 1 and "everything stays as it was" in err, err
    assert server.post("/a", json=0).headers["x-mark"] == "two"
    script(APP.format(mark="four", paths=["/b"]))
    reload()
    assert server.post("/a", json=0).status_code == 404
    assert server.post("/b", json=0).headers["x-mark"] == "four"


def test_an_app_host_is_replaced_when_a_file_that_it_has_loaded_changes(
    serve, runtime, script, litplex, reload, endpoints, tmp_path
):
    pytest.importorskip("fastapi")
    marks, late = tmp_path / "marks.py", tmp_path / "late.py"
    marks.write_text("MARK = 'one'")
    late.write_text("")
    script("class Echo(ls.LitAPI):\n    def predict(self, x):\n        return x", name="echo.py")
    program = """
        import echo
        import marks

        if __name__ == "__main__":
            server = ls.LitServer(echo.Echo(), path="/echo")

            @server.app.get("/mark")
            def mark():
                return marks.MARK

            @server.app.get("/late")
            def late():
                import late

            server.run(port=0)
    """
    server = serve(program, env=runtime)
    before = endpoints()
    (host,) = server.app_hosts()
    assert reload()[0]["plan"]["app"] is False
    marks.write_text("MARK = 'two'")
    status, out, _ = litplex("reload", "--dry-run")
    assert (status, f"{marks} has changed" in out) == (0, True), out
    answer, plan, _ = reload()
    assert (answer["plan"]["app"], answer["plan"]["app_files"]) == (True, [str(marks)])
    assert plan["/echo"]["change"] == "unchanged"
    assert server.client.get("/mark").json() == "two"
    wait_until(lambda: host not in server.app_hosts())
    assert pids(endpoints()["/echo"]) == pids(before["/echo"])
    # One that a route has loaded.
    assert server.client.get("/late").status_code == 200
    late.write_text("MARK = 1")
    assert reload()[0]["plan"]["app_files"] == [str(late)]
    assert reload()[0]["plan"]["app"] is False
    marks.write_text("MARK = (")
    status, _, err = litplex("reload")
    assert (status, "SyntaxError" in err) == (1, True), err
    assert server.client.get("/mark").json() == "two"


def metrics(server):
    return server.client.get("/metrics").text


def test_a_program_that_cannot_run_again_says_so(run, runtime, script, litplex):
    file = script(
        """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        if __name__ == "__main__":
            first = ls.start(ls.LitServer(Echo(), path="/a"), port=0)
            print("serves", first.url, flush=True)
            first.wait()
        """
    )
    program = run([sys.executable, file], kind=Server, env=runtime)
    program.wait_for_line("serves")
    for args in ((), ("--dry-run",)):
        status, _, err = litplex("reload", *args)
        assert (status, "`ls.start`" in err) == (1, True), err
    # Its endpoints can be reloaded, as they were handed over.
    assert litplex("reload", "/a")[0] == 0
    program.signal(signal.SIGTERM)
    assert program.wait() in (0, -signal.SIGTERM)
