"""Log lines of the server, as text and as JSON."""

import asyncio
import concurrent.futures
import json
import re

import httpx
import pytest
from conftest import wait_until

#: In front of each line, for people.
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "

SAYS = """
    class Says(ls.LitAPI):
        def predict(self, x):
            print(x)
            return x

    ls.LitServer(Says()).run(port=0)
"""


def test_every_line_is_an_object_where_that_is_asked_for(serve):
    server = serve(SAYS, env={"LITPLEX_LOG_FORMAT": "json"})
    server.post("/predict", json='a "quoted" text')
    server.wait_for_line("quoted")
    server.stop()
    lines = [json.loads(line) for line in server.lines]
    assert {"timestamp", "level", "message"} <= set(lines[0])
    (said,) = [line for line in lines if "quoted" in line["message"]]
    assert (said["message"], said["worker"]) == ('a "quoted" text', "/predict#0")
    assert all(re.fullmatch(TIME.rstrip(), line["timestamp"]) for line in lines)


RECORDS = """
    import json, logging, multiprocessing, sys, threading, traceback, warnings

    class Own(logging.Formatter):
        def format(self, record):
            return json.dumps({"severity": "NOTICE", "message": record.getMessage(), "own": True})

    def fail():
        raise ValueError("in a thread")

    class Says(ls.LitAPI):
        def setup(self, device):
            logging.basicConfig(level="DEBUG", format="%(asctime)s %(levelname)s %(message)s")
            handler = logging.StreamHandler(sys.stdout)
            handler.setFormatter(Own())
            logging.getLogger("own").addHandler(handler)
            logging.getLogger("own").propagate = False

        def predict(self, x):
            if x == "raise":
                raise ValueError("raised\\nof two lines")
            print("to stdout")
            print("to stderr", file=sys.stderr)
            print(json.dumps({"severity": "WARNING", "message": "printed", "worker": "forged"}))
            print('{"level": "error", "msg": "digits", "n": 12345678901234567890123}')
            log = logging.getLogger("model")
            log.debug("to debug")
            log.warning("two\\nlines of %s", "one", extra={"tokens": 7, "ratio": float("nan")})
            log.critical("x" * 100_000)
            logging.getLogger("own").info("its own form")
            try:
                {}["missing"]
            except KeyError:
                log.exception("caught")
                traceback.print_exc()
            warnings.warn("careful")
            thread = threading.Thread(target=fail, name="T1")
            thread.start()
            thread.join()
            return x

    ls.LitServer(Says()).run(port=0, request_id=True)
"""


def test_a_log_record_of_a_model_is_an_object_with_its_level(serve):
    server = serve(RECORDS, env={"LITPLEX_LOG_FORMAT": "json"})
    send(server, "/predict", "one", 1)
    send(server, "/predict", "two", "raise")
    server.wait_for_line("of two lines")
    server.stop()
    records = [json.loads(line) for line in server.lines]
    said = [record for record in records if record.get("request_id") == "one"]
    assert {(record["endpoint"], record["worker"]) for record in said} == {
        ("/predict", "/predict#0")
    }
    fields = {record["message"]: record for record in said}
    levels = {message: record["level"] for message, record in fields.items()}
    for message, level in [
        ("to stdout", "INFO"),
        ("to stderr", "WARN"),
        ("printed", "WARN"),
        ("digits", "ERROR"),
        ("to debug", "DEBUG"),
        ("two\nlines of one", "WARN"),
        ("its own form", "INFO"),
    ]:
        assert levels[message] == level, message
    assert fields["printed"]["severity"] == "WARNING"
    assert fields["digits"]["n"] == 12345678901234567890123
    assert fields["two\nlines of one"]["logger"] == "model"
    assert fields["two\nlines of one"]["tokens"] in (7, "7")
    assert fields["its own form"]["own"] is True
    long = [record for record in said if set(record["message"]) == {"x"}]
    assert sum(len(record["message"]) for record in long) == 100_000
    assert {record["level"] for record in long} == {"ERROR"}
    traces = [record for record in said if "KeyError: 'missing'" in record["message"]]
    assert [record["message"].partition("\n")[0] for record in traces] == [
        "caught",
        "Traceback (most recent call last):",
    ]
    assert {record["level"] for record in traces} == {"ERROR"}
    (warned,) = [record for record in said if "careful" in record["message"]]
    assert (warned["level"], "UserWarning" in warned["message"]) == ("WARN", True)
    (thread,) = [record for record in records if "in a thread" in record["message"]]
    assert (thread["level"], thread["message"].partition("\n")[0]) == (
        "ERROR",
        "Exception in thread T1:",
    )
    (raised,) = [record for record in records if record.get("request_id") == "two"]
    assert raised["level"] == "ERROR"
    assert raised["message"].startswith("Traceback")
    assert raised["message"].endswith("ValueError: raised\nof two lines")


def test_all_output_of_a_worker_is_printed(serve):
    server = serve(SAYS)
    text = "\n".join(f"line {number}" for number in range(50_000))
    server.post("/predict", json=text)
    server.post("/predict", json="the end")
    server.wait_for_line("the end")
    printed = [line.strip() for line in server.lines if "| line " in line]
    assert all(re.match(TIME, line) for line in printed)
    after = [re.sub(TIME, "", line) for line in printed]
    assert after == [f"/predict#0 | line {number}" for number in range(50_000)]


@pytest.mark.parametrize("form", ["human", "json"])
def test_output_of_a_worker_is_never_dropped(serve, form):
    program = SAYS.replace(
        "def predict", "setup = lambda self, device: print('printed')\n\n        def predict"
    )
    server = serve(program, env={"LITPLEX_LOG": "off", "LITPLEX_LOG_FORMAT": form}, ready=False)
    server.wait_for_line("printed")
    server.stop()
    assert len(server.lines) == 1


COMPUTES = """
    import asyncio, os, sys, threading, traceback

    def say(x):
        print("stdout", x)
        print("stderr", x, "\\n" + "second line", x, file=sys.stderr)

    class Plain(ls.LitAPI):
        def setup(self, device):
            print("no request")

        def predict(self, x):
            say(x)
            if x == "raise":
                raise ValueError("raised")
            if x == "around":
                print("half of", end=" ", flush=True)
                os.write(1, b"a line\\nfrom C\\n")
                thread = threading.Thread(target=print, args=["from a thread"])
                thread.start()
                thread.join()
            return x

    class Streams(Plain):
        def predict(self, x):
            say(x)
            yield x
            print("then", x)

    class Batch(ls.LitAPI):
        def decode_request(self, x):
            print("decode", x)
            return x

        def predict(self, batch):
            print("batch of", len(batch))
            if "raise" in batch:
                raise ValueError("raised")
            return batch

    class Async(ls.LitAPI):
        async def predict(self, x):
            say(x)
            for _ in range(3):
                await asyncio.sleep(0.01)
                print("later", x)
            await asyncio.to_thread(print, "in a thread", x)
            return x

    class AsyncBatch(ls.LitAPI):
        async def predict(self, batch):
            await asyncio.sleep(0.01)
            print("batch of", len(batch))
            return batch

    class Continuous(ls.ContinuousAPI):
        def admit(self, x):
            print("admit", x)
            return x

        def step(self, sequences):
            print("step")
            return [ls.Last(x) for x in sequences]

        def finish(self, sequence, reason):
            print("finish", sequence)

    together = dict(max_batch_size=4, batch_timeout=5)
    ls.run_servers(
        ls.LitServer(Plain(), path="/plain"),
        ls.LitServer(Streams(stream=True), path="/stream"),
        ls.LitServer(Batch(**together), path="/batch"),
        ls.LitServer(Async(), path="/async"),
        ls.LitServer(AsyncBatch(**together), path="/asyncbatch"),
        ls.LitServer(Continuous(max_batch_size=2), path="/continuous"),
        port=0,
        request_id=True,
    )
"""


@pytest.fixture(params=["human", "json"])
def said(request, serve):
    """Returns a server, and what reads its workers' lines from it: for each, of which requests
    it is."""
    server = serve(COMPUTES, env={"LITPLEX_LOG_FORMAT": request.param})

    def read(path):
        name = re.escape(f"{path}#0")
        if request.param == "human":
            matches = (
                re.fullmatch(rf"{TIME}{name}(?: \[(.*?)\])? \| (.*)", it) for it in server.lines
            )
            return [match.groups() for match in matches if match]
        records = [json.loads(line) for line in server.lines]
        records = [record for record in records if record.get("worker") == f"{path}#0"]
        assert all(record["endpoint"] == path for record in records)
        return [(record.get("request_id"), record["message"]) for record in records]

    return server, read


def send(server, path, id, x, **options):
    return server.post(path, json=x, headers={"X-Request-Id": id}, **options)


async def send_all(server, path, xs):
    """Sends values side by side, each as the request of that name."""
    async with httpx.AsyncClient(base_url=server.url) as client:
        posts = [client.post(path, json=x, headers={"X-Request-Id": x}) for x in xs]
        return [answer.json() for answer in await asyncio.gather(*posts)]


def test_output_of_a_request_carries_its_id(said):
    server, read = said
    for id, x in [("one", "1"), ("two", "raise"), ("three", "around")]:
        send(server, "/plain", id, x)
    made = server.post("/plain", json="end").headers["x-request-id"]
    server.wait_for_line(f"{made}.*second line end|second line end.*{made}")
    server.stop()
    lines = read("/plain")
    assert (None, "no request") in lines
    for id, x in [("one", "1"), ("two", "raise"), ("three", "around"), (made, "end")]:
        for text in (f"stdout {x}", f"stderr {x} ", f"second line {x}"):
            assert (id, text) in lines
    assert any(id == "two" and text.endswith("ValueError: raised") for id, text in lines)
    assert ("three", "half of a line") in lines
    assert {(None, "from C"), (None, "from a thread")} <= set(lines)


def test_output_of_a_stream_carries_its_id(said):
    server, read = said
    assert send(server, "/stream", "one", 1).text == "1\n"
    server.wait_for_line("then 1")
    server.stop()
    texts = ["second line 1", "stderr 1 ", "stdout 1", "then 1"]
    assert sorted(line for line in read("/stream") if line[0]) == [("one", text) for text in texts]


def test_a_line_of_a_batch_is_of_all_its_requests(said):
    server, read = said
    assert asyncio.run(send_all(server, "/batch", ["a", "b", "raise", "c"])) != []
    server.wait_for_line("ValueError")
    server.stop()
    lines = read("/batch")
    for x in ("a", "b", "raise", "c"):
        assert (x, f"decode {x}") in lines
        assert (x, "batch of 1") in lines, "those of a batch that raised are computed one by one"
    (batch,) = [ids for ids, text in lines if text == "batch of 4"]
    assert sorted(batch.split()) == ["a", "b", "c", "raise"]
    assert any(ids == batch and text.endswith("ValueError: raised") for ids, text in lines)


def test_async_hooks_print_for_their_own_requests(said):
    server, read = said
    xs = [f"x{number}" for number in range(20)]
    assert asyncio.run(send_all(server, "/async", xs)) == xs
    assert asyncio.run(send_all(server, "/asyncbatch", xs[:4])) == xs[:4]
    server.wait_for_line("batch of 4")
    server.stop()
    lines = read("/async")
    for x in xs:
        for text in (f"stdout {x}", f"second line {x}", f"later {x}", f"in a thread {x}"):
            assert {ids for ids, line in lines if line == text} == {x}
    (batch,) = [ids for ids, text in read("/asyncbatch") if text == "batch of 4"]
    assert sorted(batch.split()) == sorted(xs[:4])


def test_sequences_print_for_their_own_requests(said):
    server, read = said
    send(server, "/continuous", "one", "1")
    server.wait_for_line("finish 1")
    server.stop()
    assert [line for line in read("/continuous") if line[0]] == [
        ("one", "admit 1"),
        ("one", "step"),
        ("one", "finish 1"),
    ]


def test_a_client_cannot_have_its_text_taken_for_a_mark(serve):
    server = serve(SAYS.replace("run(port=0)", "run(port=0, request_id=True)"))
    server.post("/predict", json="a\x1e0000000000000000other\x1fb", headers={"X-Request-Id": "me"})
    server.wait_for_line(r"/predict#0 \[me\] \| a\x1e0000000000000000other\x1fb$")


CHOOSES = """
    import logging

    class Says(ls.LitAPI):
        def __init__(self, configures=False):
            super().__init__()
            self.configures = configures

        def setup(self, device):
            if self.configures:
                logging.basicConfig(level="INFO")

        def predict(self, x):
            print("printed", x)
            for level in ("debug", "info", "warning", "error"):
                getattr(logging.getLogger("model"), level)("%s %s", level, x)
            return x

    ls.run_servers(
        ls.LitServer(Says(), path="/plain"),
        ls.LitServer(Says(), path="/loud", log_level="debug", log_file="loud.log"),
        ls.LitServer(Says(), path="/quiet", log_level="error"),
        ls.LitServer(Says(True), path="/own", log_level="debug", log_file="loud.log"),
        port=0,
    )
"""


@pytest.fixture(params=["human", "json"])
def chosen(request, serve, tmp_path):
    """Returns a server whose endpoints choose what is logged, and what reads the lines about an
    endpoint on its standard error and in the file."""
    server = serve(CHOOSES, env={"LITPLEX_LOG_FORMAT": request.param})
    file = tmp_path / "loud.log"

    def about(path, lines):
        if request.param == "json":
            records = [json.loads(line) for line in lines]
            return [record["message"] for record in records if record.get("endpoint") == path]
        return [line for line in lines if re.search(rf"{path}(#0|: )", line)]

    def read(path):
        return about(path, server.lines), about(path, file.read_text().splitlines())

    return server, read, file


def has(lines, text):
    return any(text in line for line in lines)


def test_an_endpoint_has_a_level_and_a_file_of_its_own(chosen):
    server, read, _ = chosen
    for path in ("/plain", "/loud", "/quiet", "/own"):
        server.post(path, json=1)
    server.stop()
    said, filed = read("/plain")
    assert not filed
    assert [has(said, text) for text in ("printed 1", "info 1", "warning 1")] == [True, False, True]
    assert has(said, "ready after")
    said, filed = read("/loud")
    assert not said
    for text in ("printed 1", "debug 1", "ready after", "loading", "the model is loaded"):
        assert has(filed, text)
    said, filed = read("/quiet")
    assert [has(said, text) for text in ("printed 1", "warning 1", "error 1")] == [
        True,
        False,
        True,
    ]
    assert not has(said, "ready after") and not has(said, "loading")
    _, filed = read("/own")
    assert [has(filed, text) for text in ("info 1", "debug 1")] == [True, False]


def test_a_file_that_is_moved_away_is_followed_by_another(chosen):
    server, _, file = chosen
    server.post("/loud", json="before")
    # What is printed comes through another pipe than what is logged.
    said = ("printed before", "error before")
    wait_until(lambda: all(line in file.read_text() for line in said))
    moved = file.rename(file.with_name("loud.log.1"))
    server.post("/loud", json="after")
    wait_until(lambda: file.exists() and "error after" in file.read_text())
    assert "error after" not in moved.read_text() and "before" not in file.read_text()


def test_a_file_that_cannot_be_written_is_refused_at_the_start(serve):
    program = SAYS.replace("Says()", 'Says(), log_file="no/such.log"')
    server = serve(program, ready=False)
    assert server.wait() == 2
    server.wait_for_line(r"endpoint `/predict`: `log_file`: /.*/no/such.log: No such file")


def test_ids_reach_hooks_by_way_of_an_app_host(serve):
    pytest.importorskip("fastapi")
    authorize = "def authorize(self): pass\n\n        def predict"
    program = SAYS.replace("def predict", authorize).replace("port=0", "port=0, request_id=True")
    server = serve(program)
    assert send(server, "/predict", "mine", 1).status_code == 200
    server.wait_for_line(rf"^{TIME}/predict#0 \[mine\] \| 1$")


def test_a_program_may_put_a_stream_of_its_own_around_the_buffer(serve):
    server = serve(
        """
        import io
        import sys

        class Own(ls.LitAPI):
            def setup(self, device):
                sys.stdout = io.TextIOWrapper(sys.stdout.buffer, "utf-8", line_buffering=True)

            def predict(self, x):
                print("said", x)
                return x

        ls.LitServer(Own(), path="/own").run(port=0, request_id=True)
        """
    )
    assert server.post("/own", json=1).json() == 1
    server.wait_for_line(r"/own#0 \| said 1$")


UNNAMED = """
    import sys

    import fastapi

    class Plain(ls.LitAPI):
        def predict(self, x):
            print("plain", x)
            if x == "raise":
                raise ValueError("raised")
            if x == "malformed":
                return ls.Response(x, headers={"x-wrong": "two\\nlines"})
            if x == "exit":
                import os, time
                time.sleep(0.2)
                os._exit(3)
            return x

    class Guarded(Plain):
        async def authorize(self, request: fastapi.Request):
            print("authorized", request.headers["x-says"])

    class Batch(ls.LitAPI):
        def predict(self, batch):
            print("batch of", len(batch))
            return batch

    class Async(ls.LitAPI):
        async def predict(self, x):
            print("async", x)
            return x

    ls.run_servers(
        ls.LitServer(Plain(), path="/plain"),
        ls.LitServer(Guarded(), path="/guarded"),
        ls.LitServer(Batch(max_batch_size=20, batch_timeout=5), path="/batch"),
        ls.LitServer(Async(), path="/async"),
        port=0,
    )
"""


def test_operators_find_the_lines_of_requests_that_have_no_ids(serve, runtime, litplex):
    server = serve(UNNAMED, env=runtime)

    def objects(*command):
        status, out, err = litplex(*command, "--json")
        assert status == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def lines(name, *texts):
        """Returns the messages about a request, once each text is in one of them.

        The lines of two streams have no order: each is read from a pipe of its own.
        """

        def found():
            messages = [line["message"] for line in objects("logs", "--request", name)]
            seen = all(any(text in message for message in messages) for text in texts)
            return messages if messages and seen else None

        return wait_until(found)

    def names(path, count):
        """Returns the names of the last requests, once there are so many."""
        ended = wait_until(lambda: (it := objects("requests", path))[count - 1 :] and it)
        return [request["id"] for request in ended]

    answer = server.post("/plain", json="one")
    assert "x-request-id" not in answer.headers
    (one,) = names("/plain", 1)
    assert re.fullmatch(r"r\d+", one)
    assert lines(one) == ["plain one"]
    # The lines of the next request are not about this one.
    server.post("/plain", json="raise")
    two = names("/plain", 2)[-1]
    assert "plain raise" in lines(two, "ValueError: raised", "plain raise")
    assert lines(one) == ["plain one"]
    # The server's own line about a request.
    assert server.post("/plain", json="malformed").status_code == 500
    lines(names("/plain", 3)[-1], "HTTP cannot carry the response", "plain malformed")
    # A client's own id is the name of its request, also if the server gives none.
    send(server, "/plain", "mine", "two")
    assert names("/plain", 4)[-1] == "mine"
    assert lines("mine") == ["plain two"]
    server.post("/async", json="three")
    assert lines(names("/async", 1)[-1]) == ["async three"]
    server.post("/guarded", json="four", headers={"X-Says": "me"})
    four = lines(names("/guarded", 1)[-1], "authorized me", "plain four")
    assert sorted(four) == ["authorized me", "plain four"]
    # A line of a batch is about each of its requests, however many they are.
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda x: server.post("/batch", json=x), range(20)))
    assert {tuple(lines(name)) for name in names("/batch", 20)} == {("batch of 20",)}
    # A worker that dies: which requests it had.
    server.post("/plain", json="exit")
    lines(names("/plain", 5)[-1], "lost with 1 request")
    # The log itself has ids alone.
    server.wait_for_line(r"/plain#0 \| plain one$")
    assert litplex("logs", "--request", "nosuch") == (0, "", "no line of the log is about this\n")
