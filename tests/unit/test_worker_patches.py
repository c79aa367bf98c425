"""A change of the code of a running worker: requests before it end on the old code, those behind it
are computed by the new one."""

import hashlib
import json
import sys

import pytest
from litplex._worker.wire import frames

SINGLE = """
    class API(ls.LitAPI):
        def predict(self, x):
            say(f"predict {x}")
            if x == "wait":
                gate()
            return self.version()

        def version(self):
            return "old"
"""
BATCH = """
    class API(ls.LitAPI):
        def decode_request(self, request):
            return request + self.version()

        def predict(self, inputs):
            say(f"predict {inputs}")
            if inputs[0].startswith("wait"):
                gate()
            return [x + self.version() for x in inputs]

        def version(self):
            return "old"
"""
ASYNC = """
    class API(ls.LitAPI):
        async def predict(self, x):
            say(f"predict {x}")
            while x == "wait" and not os.path.exists("gate"):
                await asyncio.sleep(0.002)
            return self.version()

        def version(self):
            return "old"
"""
CONTINUOUS = """
    class API(ls.ContinuousAPI):
        def decode_request(self, request):
            return [request, self.version()]

        def admit(self, x, context):
            say(f"predict {x[0]}")
            return x

        def step(self, sequences):
            time.sleep(0.002)
            return [
                None if x == "wait" and not os.path.exists("gate") else ls.Last(y + self.version())
                for x, y in sequences
            ]

        def version(self):
            return "old"
"""
KINDS = {
    "single": (SINGLE, {}, lambda x, version: version),
    "batch": (BATCH, {"max_batch_size": 2}, lambda x, version: x + version * 2),
    "async": (ASYNC, {"max_concurrency": 4}, lambda x, version: version),
    "continuous": (CONTINUOUS, {"max_batch_size": 4}, lambda x, version: [version * 2]),
}


def new_text(server, old='return "old"', new='return "new"'):
    """Returns the file of the model with another text."""
    path = server.directory / "model.py"
    return [{"path": str(path), "text": path.read_text("utf-8").replace(old, new)}]


@pytest.mark.parametrize("kind", KINDS)
def test_requests_before_and_behind_a_change_have_one_code_each(worker, kind):
    model, args, output = KINDS[kind]
    server = worker(model, args, patches=True)
    server.request(1, "wait")
    server.wait_for("predict")
    server.patch("prepare", 1, files=new_text(server))
    assert server.patched(1) == {}, "while the model computes"
    server.patch("hold", 2)
    server.request(2, "behind")
    assert server.is_silent()
    server.open_gate()
    assert server.patched(2) == {}
    assert server.answers(1) == {1: (200, output("wait", "old"))}
    assert server.is_silent(), "nothing is computed while the code is changed"
    server.patch("commit", 3)
    assert server.patched(3) == {}
    assert server.answers(1) == {2: (200, output("behind", "new"))}
    assert server.end() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_that_is_given_up_changes_nothing(worker, kind):
    model, args, output = KINDS[kind]
    server = worker(model, args, patches=True)
    server.patch("prepare", 1, files=new_text(server))
    assert server.patched(1) == {}
    server.patch("hold", 2)
    assert server.patched(2) == {}
    server.request(1, "behind")
    server.patch("abort", 3)
    assert server.patched(3) == {}
    assert server.answers(1) == {1: (200, output("behind", "old"))}
    # Also where the worker has not stopped before.
    server.request(2, "wait")
    server.wait_for("wait")
    server.patch("prepare", 4, files=new_text(server))
    assert server.patched(4) == {}
    server.patch("hold", 5)
    server.request(3, "behind")
    server.patch("abort", 6)
    assert server.patched(6) == {}
    server.open_gate()
    assert server.answers(2) == {
        2: (200, output("wait", "old")),
        3: (200, output("behind", "old")),
    }
    assert server.end() == 0


def test_the_loaded_text_is_the_one_that_counts(worker):
    server = worker(SINGLE, patches=True)
    path = server.directory / "model.py"
    before = path.read_text("utf-8")
    path.write_text(before.replace("old", "unseen"), encoding="utf-8")
    server.patch("prepare", 1, files=[{"path": str(path), "text": before}])
    assert server.patched(1) == {"unchanged": True}
    server.request(1, "x")
    assert server.answers(1) == {1: (200, "old")}


def test_changes_that_cannot_be_made_are_refused_with_reasons(worker):
    server = worker(SINGLE, patches=True)
    server.patch("prepare", 1, files=new_text(server, "class API", "LIMIT = 1\nclass API"))
    refused = server.patched(1)
    assert "the code of the module changed (line " in refused["reason"]
    assert "traceback" not in refused
    server.patch("prepare", 2, files=new_text(server, 'return "old"', 'return "new'))
    refused = server.patched(2)
    assert refused["reason"].startswith("SyntaxError: ")
    assert 'model.py", line ' in refused["traceback"]
    # What came after a refusal is nothing.
    server.patch("hold", 3)
    server.request(1, "x")
    assert server.answers(1) == {1: (200, "old")}
    assert server.end() == 0


def test_a_lost_server_frees_a_worker_that_is_held(worker):
    server = worker(SINGLE, patches=True)
    server.patch("prepare", 1, files=new_text(server))
    assert server.patched(1) == {}
    server.patch("hold", 2)
    assert server.patched(2) == {}
    server.hang_up()
    assert server.process.wait(15) == 0


def test_a_server_that_changes_no_code_sends_no_step(worker):
    server = worker(SINGLE)
    server.patch("prepare", 1, files=[])
    assert server.process.wait(15) == 1
    assert "a frame of kind 21 has no place here" in server.errors


LAZY = """
    class API(ls.LitAPI):
        def predict(self, x):
            import helper
            import json.tool
            return helper.VALUE
"""


def loaded(path, text=None):
    """Returns how a worker reports a file with this text, by default the present one."""
    text = path.read_bytes() if text is None else text.encode()
    return {"path": str(path), "digest": hashlib.sha256(text).hexdigest()}


def test_source_files_are_reported_when_they_are_loaded(worker, tmp_path):
    (tmp_path / "helper.py").write_text("VALUE = 1\n")
    server = worker(LAZY)
    assert server.traits["sources"] == [loaded(tmp_path / "model.py")]
    server.request(1, 1)
    assert server.answers(1) == {1: (200, 1)}
    # Without a question of the server, which may want to know at once.
    kind, _, _, _, payload = server.receive("control")
    sources = {"sources": [loaded(tmp_path / "helper.py")]}
    assert (kind, json.loads(payload)) == (frames.SOURCES, sources)
    server.ping()
    server.ping()


CHILDREN = """
    class API(ls.LitAPI):
        def predict(self, x):
            child = os.fork()
            if child == 0:
                import helper
                os._exit(helper.VALUE)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(sys.version_info < (3, 9), reason="needs os.waitstatus_to_exitcode")
def test_a_child_of_a_hook_does_not_report_on_the_connection_of_its_worker(worker, tmp_path):
    (tmp_path / "helper.py").write_text("VALUE = 7\n")
    server = worker(CHILDREN)
    server.request(1, 1)
    assert server.answers(1) == {1: (200, 7)}
    # The next frame would be a report.
    server.ping()


@pytest.mark.parametrize("patches", [False, True])
def test_a_digest_is_that_of_the_text_that_was_loaded(worker, tmp_path, patches):
    helper = tmp_path / "helper.py"
    helper.write_text("VALUE = 1\n")
    # The model saves the file again while it is being loaded.
    model = """
        import helper

        class API(ls.LitAPI):
            def predict(self, x):
                return helper.VALUE
    """
    saves = f"open({str(helper)!r}, 'w').write('VALUE = 2\\n'); VALUE = 1\n"
    helper.write_text(saves)
    server = worker(model, patches=patches)
    assert helper.read_text() != saves
    assert loaded(helper, saves) in server.traits["sources"]


def test_a_change_of_the_code_is_reported_before_its_answer(worker, tmp_path):
    server = worker(SINGLE, patches=True)
    files = new_text(server)
    server.patch("prepare", 1, files=files)
    assert server.patched(1) == {}
    server.patch("hold", 2)
    assert server.patched(2) == {}
    server.patch("commit", 3)
    kind, _, _, _, payload = server.receive("control")
    sources = {"sources": [loaded(tmp_path / "model.py", files[0]["text"])]}
    assert (kind, json.loads(payload)) == (frames.SOURCES, sources)
    assert server.patched(3) == {}
