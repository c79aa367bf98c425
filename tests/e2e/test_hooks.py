"""Results and errors of hooks: every loop of the worker sends them the same way."""

import concurrent.futures
import re

import httpx
from conftest import wait_until

HOOKS = """
    import asyncio, os, sys
    from starlette.background import BackgroundTask, BackgroundTasks
    from starlette.responses import FileResponse, JSONResponse, StreamingResponse

    def note(text):
        print(f"after {text}\\n", end="")

    async def note_async(text):
        await asyncio.sleep(0.01)
        print(f"after {text}\\n", end="")

    def fail():
        raise RuntimeError("it failed afterwards")

    def reply(x):
        kind, _, loop = x.partition(" ")
        if kind == "json":
            return JSONResponse({"a": 1}, background=BackgroundTask(note, x))
        if kind == "async":
            return JSONResponse({"a": 1}, background=BackgroundTask(note_async, x))
        if kind == "stream":
            return StreamingResponse(iter(["a", "b"]), background=BackgroundTask(note, x))
        if kind == "file":
            name = f"{loop}.txt"
            with open(name, "w") as file:
                file.write("a")
            return FileResponse(name, background=BackgroundTask(os.remove, name))
        if kind == "several":
            tasks = BackgroundTasks()
            tasks.add_task(note, x)
            tasks.add_task(note_async, x)
            tasks.add_task(fail)
            return JSONResponse({"a": 1}, background=tasks)
        if kind == "cancelled":
            raise asyncio.CancelledError(x)
        if kind == "closed":
            raise GeneratorExit(x)
        if kind == "exit":
            sys.exit(x)
        if kind == "unsendable":
            return {"a": [1, object()]}
        return x

    def reply_or_error(x):
        try:
            return reply(x)
        except BaseException as error:
            return error

    class Plain(ls.LitAPI):
        def predict(self, x):
            return reply(x)

    class Async(ls.LitAPI):
        async def predict(self, x):
            return reply(x)

    class Batch(ls.LitAPI):
        def predict(self, xs):
            return list(map(reply, xs))

    class Outcomes(ls.LitAPI):
        def predict(self, xs):
            return list(map(reply_or_error, xs))

    class AsyncBatch(ls.LitAPI):
        async def predict(self, xs):
            return list(map(reply, xs))

    class Encoded(ls.LitAPI):
        def predict(self, xs):
            return xs

        def encode_response(self, x):
            return reply(x)

    class EncodedAsync(Encoded):
        async def encode_response(self, x):
            return reply(x)

    class Continuous(ls.ContinuousAPI):
        def admit(self, x, context):
            return x

        def step(self, sequences):
            outcomes = map(reply_or_error, sequences)
            return [o if isinstance(o, BaseException) else ls.Last(o) for o in outcomes]

        def encode_response(self, outputs):
            return outputs[0]

    class Steps(ls.LitAPI):
        def predict(self, xs):
            yield list(map(reply_or_error, xs))

    class AsyncSteps(ls.LitAPI):
        async def predict(self, xs):
            yield list(map(reply_or_error, xs))

    batch = {"max_batch_size": 8, "batch_timeout": 0.2}
    ls.run_servers(
        ls.LitServer(Plain(), path="/plain"),
        ls.LitServer(Async(), path="/async"),
        ls.LitServer(Batch(**batch), path="/batch"),
        ls.LitServer(Outcomes(**batch), path="/outcomes"),
        ls.LitServer(AsyncBatch(**batch), path="/async_batch"),
        ls.LitServer(Encoded(**batch), path="/encoded"),
        ls.LitServer(EncodedAsync(**batch), path="/encoded_async"),
        ls.LitServer(Continuous(max_batch_size=8), path="/continuous"),
        ls.LitServer(Steps(stream=True, **batch), path="/steps"),
        ls.LitServer(AsyncSteps(stream=True, **batch), path="/async_steps"),
        port=0,
    )
"""

WHOLE = [
    *("plain", "async", "batch", "outcomes", "async_batch", "encoded", "encoded_async"),
    "continuous",
]


def ask(server, path, kinds):
    def post(kind):
        return httpx.post(f"{server.url}/{path}", json=f"{kind} {path}", timeout=30)

    with concurrent.futures.ThreadPoolExecutor(len(kinds)) as threads:
        return dict(zip(kinds, threads.map(post, kinds)))


def test_results_and_errors_of_hooks_are_the_same_in_all_loops(serve, tmp_path):
    server = serve(HOOKS)
    sent = {
        "json": '{"a":1}',
        "async": '{"a":1}',
        "several": '{"a":1}',
        "stream": "ab",
        "file": "a",
    }
    for path in WHOLE:
        got = ask(server, path, [*sent, "other"])
        assert {kind: got[kind].text for kind in sent} == sent
        assert got["other"].json() == f"other {path}"

    def output():
        return server.output

    for path in WHOLE:
        for kind, times in {"json": 1, "async": 1, "stream": 1, "several": 2}.items():
            line = re.compile(rf"\bafter {kind} {path}$", re.MULTILINE)
            wait_until(lambda line=line, t=times: len(line.findall(output())) == t, output)
    wait_until(lambda: output().count("RuntimeError: it failed afterwards") == len(WHOLE))
    wait_until(lambda: not list(tmp_path.glob("*.txt")))

    # An exception fails its own request alone, in each loop.
    failing = ["cancelled", "closed", "exit", "unsendable"]
    for path in [*WHOLE, "steps", "async_steps"]:
        got = ask(server, path, [*failing, "a", "b"])
        assert {kind: got[kind].status_code for kind in failing} == dict.fromkeys(failing, 500)
        assert f"a {path}" in got["a"].text
        assert f"b {path}" in got["b"].text
        detail = got["unsendable"].json()["detail"]
        assert 'JSON: answer["a"][1] is of type object' in detail, path
    assert "what `Plain.predict` (" in output()
    assert "encoder.py" not in output()
    assert "litplex/_worker" not in output()
    server.stop()
