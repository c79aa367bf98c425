"""`litplex serve --reload`: saves of source files change what is served."""

import json
import os
import signal
import time

import pytest
from conftest import LITPLEX, Server, wait_until

MODELS = """
import os
import time

import litplex as ls

SCALE = 1


class Model(ls.LitAPI):
    def setup(self, device):
        with open("setups", "a") as setups:
            setups.write("x")

    def predict(self, x):
        return [self.answer(), SCALE, os.getpid()]

    def answer(self):
        return "first"


class Async(ls.LitAPI):
    async def predict(self, x):
        return "first"


class Stream(ls.LitAPI):
    def predict(self, n):
        for i in range(n):
            while i and not os.path.exists("go"):
                time.sleep(0.002)
            yield {"answer": "first"}
"""

OTHER = """
import os

import litplex as ls


class Other(ls.LitAPI):
    def predict(self, x):
        return os.getpid()
"""

SERVER = """
    import models
    import other

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(models.Model(), path="/model", workers_per_device=2),
            ls.LitServer(models.Model(max_batch_size=1), path="/batched"),
            ls.LitServer(models.Async(), path="/async"),
            ls.LitServer(models.Stream(stream=True), path="/stream"),
            ls.LitServer(other.Other(), path="/other"),
            port=0,
        )
"""

TOML = """
port = 0

[[endpoint]]
path = "/model"
api = "models.py:Model"
"""


@pytest.fixture
def save(tmp_path):
    """Writes a file of the program, as editors do that replace it; returns its path."""

    def write(name, text):
        path, fresh = tmp_path / name, tmp_path / f"{name}.tmp"
        fresh.write_text(text)
        os.replace(fresh, path)
        return path

    return write


@pytest.fixture
def develop(run, tmp_path, runtime):
    """Starts `litplex serve --reload` in the test's directory."""

    def start(file, *, ready=True):
        command = [LITPLEX, "serve", "--reload", "--port", "0", file]
        server = run(command, kind=Server, env=runtime)
        if not ready:
            return server
        server.wait_until_ready()
        return server

    return start


def answers(server, path, expected, json=1):
    """Waits until an endpoint answers this."""

    def is_answered():
        answer = server.post(path, json=json)
        assert answer.status_code == 200, answer.text
        got = answer.json()
        return (got[:-1] if isinstance(got, list) else got) == expected

    wait_until(is_answered, lambda: server.output)


def test_code_of_a_forked_worker_changes(save, develop, tmp_path):
    """The template has imported one of the files, and the worker the other."""
    save("tools.py", "import os\nPID = os.getpid()\n\ndef name():\n    return 'first'\n")
    model = (
        "import os\nimport litplex as ls\nimport tools\n\n"
        "class Model(ls.LitAPI):\n    def predict(self, x):\n"
        "        return [tools.name(), 'one', os.getpid(), tools.PID]\n"
    )
    save("models.py", model)
    server = develop(save("litplex.toml", f'{TOML}preload = ["tools"]\n'))
    _, _, pid, imported_by = server.post("/model", json=1).json()
    assert pid != imported_by
    server.wait_for_line(r"/model.*watching 2 files: models\.py, tools\.py")
    save("models.py", model.replace("'one'", "'two'"))
    answers(server, "/model", ["first", "two", pid])
    tools = (tmp_path / "tools.py").read_text()
    save("tools.py", tools.replace("'first'", "'second'"))
    answers(server, "/model", ["second", "two", pid])
    # The next template has the present code.
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.output.count("/model#0: ready after") == 2)
    assert server.post("/model", json=1).json()[:2] == ["second", "two"]


def test_saves_change_what_is_served(
    save, script, develop, runtime, litplex, endpoint_of, tmp_path
):
    save("models.py", MODELS)
    save("other.py", OTHER)
    server = develop(script(SERVER))
    server.wait_for_line(r"/model.*watching 1 files: models\.py")
    server.wait_for_line(r"for development: a save of server\.py")
    other = server.post("/other", json=1).json()
    setups = tmp_path / "setups"
    assert setups.read_text() == "xxx"
    before = {server.post("/model", json=1).json()[2] for _ in range(20)}

    # Hooks are changed in the workers that run.
    save("models.py", MODELS.replace('"first"', '"second"'))
    answers(server, "/model", ["second", 1])
    answers(server, "/batched", ["second", 1])
    answers(server, "/async", "second")
    server.wait_for_line(r"/model: models\.py changed: the hooks are patched")
    assert setups.read_text() == "xxx"
    assert {server.post("/model", json=1).json()[2] for _ in range(20)} == before
    assert "the hooks of generation 1 of /model are patched: models.py" in litplex("events")[1]

    # A worker that starts anew has the present code.
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: setups.read_text() == "xxxx")
    wait_until(lambda: endpoint_of("/model")["state"] == "ready")
    assert {server.post("/model", json=1).json()[0] for _ in range(20)} == {"second"}
    wait_until(lambda: {w["state"] for w in endpoint_of("/model")["workers"]} == {"ready"})

    # Other changes need a new generation.
    third = MODELS.replace('"first"', '"third"').replace("SCALE = 1", "SCALE = 3")
    save("models.py", third)
    answers(server, "/model", ["third", 3])
    server.wait_for_line(
        r"/model: models\.py changed: the code of the module changed \(line 7\); a new generation"
    )
    answers(server, "/batched", ["third", 3])
    answers(server, "/async", "third")

    # What cannot be loaded changes nothing, and shows why.
    save("models.py", third.replace("SCALE = 3", "SCALE = ("))
    server.wait_for_line(r"/model: models\.py changed: SyntaxError: ")
    server.wait_for_line(r'File ".*models\.py", line \d+')
    assert server.post("/model", json=1).json()[:2] == ["third", 3]
    assert "goes on with the code before: SyntaxError" in litplex("events")[1]
    fourth = third.replace('"third"', '"fourth"')
    save("models.py", fourth)
    answers(server, "/model", ["fourth", 3])
    answers(server, "/batched", ["fourth", 3])

    # A file that is missing is seen when it comes.
    save("models.py", "import missing\n" + fourth)
    server.wait_for_line(r"there is no module `missing`")
    server.wait_for_line(r"Traceback")
    assert server.post("/model", json=1).json()[:2] == ["fourth", 3]
    save("missing.py", "")
    save("models.py", "import missing\n" + fourth.replace('"fourth"', '"fifth"'))
    answers(server, "/model", ["fifth", 3])
    answers(server, "/async", "fifth")

    # All this time the endpoint that uses no such file went on.
    assert server.post("/other", json=1).json() == other
    assert endpoint_of("/other")["generations"] == endpoint_of("/other")["generations"][:1]
    assert server.stop() == 0


def test_a_stream_in_progress_ends_on_the_code_that_it_began_with(save, script, develop, tmp_path):
    save("models.py", MODELS)
    save("other.py", OTHER)
    server = develop(script(SERVER))

    with server.client.stream("POST", "/stream", json=3) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines)) == {"answer": "first"}
        save("models.py", MODELS.replace('"first"', '"second"'))
        # The worker is busy: the requests behind this one are not held for long.
        server.wait_for_line(r"/stream: .*requests in progress take longer than 1 s; a new gen")
        answers(server, "/model", ["second", 1])
        server.wait_for_line(r"/stream: generation 2 is live")
        assert server.post("/stream", json=1).json() == {"answer": "second"}
        (tmp_path / "go").touch()
        assert [json.loads(line) for line in lines if line] == [{"answer": "first"}] * 2
    assert server.stop() == 0


SLOW = """
import os
import time

import litplex as ls


class Model(ls.LitAPI):
    def setup(self, device):
        open(f"began-{NUMBER}", "w").close()
        while not os.path.exists(f"load-{NUMBER}"):
            time.sleep(0.005)

    def predict(self, x):
        return NUMBER


NUMBER = 1
"""


def test_the_last_of_several_saves_wins(save, develop, endpoint_of, tmp_path):
    save("models.py", SLOW)
    toml = save("litplex.toml", TOML)
    (tmp_path / "load-1").touch()
    server = develop(toml)
    assert server.post("/model", json=1).json() == 1
    save("models.py", SLOW.replace("NUMBER = 1", "NUMBER = 2"))
    wait_until(lambda: (tmp_path / "began-2").exists())
    # These come while the generation of the second one starts.
    for number in (3, 4, 5):
        save("models.py", SLOW.replace("NUMBER = 1", f"NUMBER = {number}"))
        (tmp_path / f"load-{number}").touch()
        time.sleep(0.2)
    (tmp_path / "load-2").touch()
    answers(server, "/model", 5)
    generations = endpoint_of("/model")["generations"]
    assert [it["generation"] for it in generations] == [1, 2, 3]
    assert not (tmp_path / "began-4").exists()
    # What is saved as it was needs nothing.
    save("models.py", SLOW.replace("NUMBER = 1", "NUMBER = 5"))
    (tmp_path / "models.py").rename(tmp_path / "away.py")
    (tmp_path / "away.py").rename(tmp_path / "models.py")
    time.sleep(0.5)
    assert len(endpoint_of("/model")["generations"]) == 3
    # Nor do files of which the program is not made.
    save("more.py", "")
    (tmp_path / "models.py").unlink()
    server.wait_for_line(r"models\.py changed: models\.py is gone; a new generation starts")
    server.wait_for_line(r"there is no file `.*models\.py`")
    assert server.post("/model", json=1).json() == 5
    (tmp_path / "load-6").touch()
    save("models.py", SLOW.replace("NUMBER = 1", "NUMBER = 6"))
    answers(server, "/model", 6)
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("server.py", SERVER.replace("import models", "import models ("), "SyntaxError"),
        ("server.py", SERVER.replace("workers_per_device=2", "wokers=2"), "wokers"),
        ("litplex.toml", TOML.replace("api =", "apis ="), "apis"),
        ("models.py", MODELS.replace("SCALE = 1", "SCALE = 1 / 0"), "ZeroDivisionError"),
    ],
    ids=["syntax", "argument", "toml", "model"],
)
def test_a_program_that_is_wrong_at_the_start_is_waited_for(
    save, script, develop, name, wrong, said
):
    right = {"models.py": MODELS, "other.py": OTHER, "litplex.toml": TOML}
    for file, text in right.items():
        save(file, text)
    program = script(SERVER)
    right["server.py"] = program.read_text()
    if name == "server.py":
        script(wrong)
    else:
        save(name, wrong)
    server = develop(
        program if name == "server.py" else program.with_name("litplex.toml"), ready=False
    )
    server.wait_for_line(said)
    server.wait_for_line(r"waiting for a change of \S+")
    save(name, right[name])
    server.wait_until_ready()
    # The last one: a server whose model is wrong listens until it knows.
    lines = [line for line in server.lines if "listening on http" in line]
    server.client.base_url = lines[-1].split("listening on ")[1].split()[0]
    answers(server, "/model", ["first", 1])
    assert server.stop() == 0


def test_a_wait_for_a_correction_can_be_interrupted(save, develop):
    server = develop(save("litplex.toml", "port = "), ready=False)
    server.wait_for_line(r"waiting for a change of \S+")
    server.signal(signal.SIGINT)
    assert server.wait() == -signal.SIGINT


def options_of(litplex, endpoint):
    """Returns the options of an endpoint that is served; None if there is none."""
    settings = json.loads(litplex("config", "--json")[1])["endpoints"]
    found = [it["options"] for it in settings if it["endpoint"] == endpoint]
    return {row["name"]: row["value"] for row in found[0]} if found else None


def pids_of(endpoint):
    return {worker["pid"] for worker in endpoint["workers"]}


def test_a_save_of_the_configuration_is_applied(save, develop, litplex, endpoint_of, tmp_path):
    save("models.py", MODELS)
    save("other.py", OTHER)
    server = develop(save("litplex.toml", TOML))
    before = pids_of(endpoint_of("/model"))
    save("litplex.toml", TOML + "max_queue = 7\n")
    server.wait_for_line(r"litplex\.toml changed: the configuration is read again")
    wait_until(lambda: options_of(litplex, "/model")["max_queue"] == "7")
    assert pids_of(endpoint_of("/model")) == before

    # What is wrong leaves the old one, and is shown.
    save("litplex.toml", TOML + "max_queue = = 8\n")
    server.wait_for_line(r"the reload failed: .*litplex\.toml: TOML parse error")
    save("litplex.toml", TOML + "max_queues = 8\n")
    server.wait_for_line(r"the reload failed: .*there is no option `max_queues`")
    assert server.post("/model", json=1).json()[:2] == ["first", 1]
    assert options_of(litplex, "/model")["max_queue"] == "7"

    other = '\n[[endpoint]]\npath = "/other"\napi = "other.py:Other"\n'
    save("litplex.toml", TOML + "max_queue = 8\n" + other)
    wait_until(lambda: server.post("/other", json=1).status_code == 200)
    assert options_of(litplex, "/model")["max_queue"] == "8"
    assert pids_of(endpoint_of("/model")) == before
    # The files of an endpoint that came later are watched, too.
    server.wait_for_line(r"/other.*watching 1 files: other\.py")
    save("other.py", OTHER.replace("os.getpid()", "'patched'"))
    wait_until(lambda: server.post("/other", json=1).json() == "patched")
    # Options that need new workers.
    save("litplex.toml", TOML + "max_batch_size = 1\nworkers_per_device = 2\n" + other)
    wait_until(lambda: len(endpoint_of("/model")["workers"]) == 2)
    answers(server, "/model", ["first", 1])
    save("models.py", MODELS.replace('"first"', '"second"'))
    answers(server, "/model", ["second", 1])
    save("litplex.toml", TOML)
    wait_until(lambda: server.post("/other", json=1).status_code == 404)
    assert server.stop() == 0


PROGRAM = """
    import models
    import settings

    if __name__ == "__main__":
        server = ls.LitServer(
            models.Model(settings.WORD), path="/model", max_queue=settings.MAX_QUEUE
        )
        server.run(port=0)
"""
WORDS = """
import litplex as ls


class Model(ls.LitAPI):
    def __init__(self, word):
        super().__init__()
        self.word = word

    def predict(self, x):
        return self.answer()

    def answer(self):
        return self.word
"""
SETTINGS = """
WORD = "one"
MAX_QUEUE = 5
"""


def test_a_save_of_the_program_is_applied(save, script, develop, litplex, endpoint_of):
    save("models.py", WORDS)
    save("settings.py", SETTINGS)
    server = develop(script(PROGRAM))
    before = pids_of(endpoint_of("/model"))
    # A file that no model has loaded.
    save("settings.py", SETTINGS.replace("5", "6"))
    server.wait_for_line(r"settings\.py changed: the configuration is read again")
    wait_until(lambda: options_of(litplex, "/model")["max_queue"] == "6")
    assert pids_of(endpoint_of("/model")) == before
    save("settings.py", SETTINGS.replace("one", "two"))
    answers(server, "/model", "two")

    # What cannot run leaves the old program, and shows why.
    script(PROGRAM.replace("import settings", "import settings ("))
    server.wait_for_line(r"the reload failed: ")
    server.wait_for_line(r"SyntaxError")
    wait_until(lambda: 'server.py", line' in server.output)
    script(PROGRAM)
    save("settings.py", "1 / 0")
    server.wait_for_line("ZeroDivisionError")
    assert server.post("/model", json=1).json() == "two"
    script(PROGRAM.replace('path="/model"', 'path="/new"'))
    save("settings.py", SETTINGS.replace("one", "three"))
    wait_until(lambda: server.post("/new", json=1).status_code == 200)
    assert server.post("/new", json=1).json() == "three"
    wait_until(lambda: server.post("/model", json=1).status_code == 404)

    # A constructor runs again, in the program.
    changed = WORDS.replace("self.word = word", "self.word = word\n        self.more = 'more'")
    save("models.py", changed.replace("return self.word", "return self.word + self.more"))
    answers(server, "/new", "threemore")
    assert server.stop() == 0


APP = """
    import echo
    import web

    if __name__ == "__main__":
        server = ls.LitServer(echo.Echo(), path="/echo")
        web.add(server.app)
        server.run(port=0)
"""
WEB = """
def add(app):
    @app.get("/mark")
    def mark():
        return "one"
"""
ECHO = """
import litplex as ls


class Echo(ls.LitAPI):
    def predict(self, x):
        return x
"""


def test_an_app_host_is_started_anew_when_its_files_change(save, script, develop, endpoint_of):
    pytest.importorskip("fastapi")
    save("echo.py", ECHO)
    save("web.py", WEB)
    server = develop(script(APP))
    before = pids_of(endpoint_of("/echo"))
    assert server.client.get("/mark").json() == "one"
    (host,) = server.app_hosts()
    save("web.py", WEB.replace("one", "two"))
    wait_until(lambda: server.client.get("/mark").json() == "two")
    wait_until(lambda: host not in server.app_hosts())
    save("web.py", WEB.replace('"one"', "("))
    server.wait_for_line(r"web\.py\", line \d+")
    server.wait_for_line(r"SyntaxError")
    assert server.client.get("/mark").json() == "two"
    save("web.py", WEB.replace("one", "three"))
    wait_until(lambda: server.client.get("/mark").json() == "three")
    assert pids_of(endpoint_of("/echo")) == before
    # The hooks of a model are patched, and the app host that has loaded the file is started anew.
    (host,) = server.app_hosts()[-1:]
    save("echo.py", ECHO.replace("return x", "return [x]"))
    wait_until(lambda: server.post("/echo", json=1).json() == [1])
    wait_until(lambda: host not in server.app_hosts())
    assert server.stop() == 0


def test_a_save_mends_an_endpoint_that_was_stopped_for_a_generation_that_failed(save, develop):
    save("models.py", MODELS)
    save("other.py", OTHER)
    other = '\n[[endpoint]]\npath = "/other"\napi = "other.py:Other"\n'
    server = develop(save("litplex.toml", TOML + 'swap = "in_place"\n' + other))
    answers(server, "/model", ["first", 1])
    # The old workers stop first, and start again with the file that is there now.
    save(
        "models.py", MODELS.replace("def setup", "def wrong").replace("SCALE = 1", "SCALE = 1 / 0")
    )
    wait_until(lambda: server.post("/model", json=1).status_code == 503)
    save("other.py", OTHER.replace("os.getpid()", "'other'"))
    wait_until(lambda: server.post("/other", json=1).json() == "other")
    save("models.py", MODELS.replace('"first"', '"mended"').replace("SCALE = 1", "SCALE = 2"))
    wait_until(
        lambda: server.post("/model", json=1).text.startswith('["mended",2,'), lambda: server.output
    )
