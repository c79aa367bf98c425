"""Dispatching middlewares: those of Starlette and of the app host behave in the same way."""

import asyncio
import contextlib
import contextvars

import litplex as ls
import pytest
from litplex._apphost._middleware import without_task_group
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

KINDS = {"starlette": BaseHTTPMiddleware, "litplex": without_task_group(BaseHTTPMiddleware)}


@pytest.fixture(params=KINDS)
def around(request):
    """Puts a function around an app."""
    return lambda app, dispatch: KINDS[request.param](app, dispatch=dispatch)


class Client:
    """Sends pieces of a body, and leaves once ``leaves`` is set; keeps the response."""

    def __init__(self, *pieces):
        self.leaves = asyncio.Event()
        self.status, self.headers, self.body = None, {}, b""
        self.is_answered = asyncio.Event()
        self._pieces = list(pieces or [b""])

    async def ask(self, app):
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        await app(scope, self._receive, self._send)

    async def _receive(self):
        if self._pieces:
            body = self._pieces.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._pieces)}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                self.is_answered.set()


def run(act):
    return asyncio.run(asyncio.wait_for(act(), 20))


async def answer(app, *pieces):
    client = Client(*pieces)
    await client.ask(app)
    return client


async def echo(scope, receive, send):
    body = await Request(scope, receive).body()
    await PlainTextResponse(b"app read " + body)(scope, receive, send)


async def pass_on(request, call_next):
    return await call_next(request)


def answering(response):
    async def app(scope, receive, send):
        await response(scope, receive, send)

    return app


def test_headers_are_added_to_in_order(around):
    def adds(name):
        async def add(request, call_next):
            response = await call_next(request)
            order.append(name)
            response.headers[name] = response.headers.get("x-inner", "none")
            return response

        return add

    order: list[str] = []
    app = around(around(echo, adds("x-inner")), adds("x-outer"))
    client = run(lambda: answer(app, b"it"))
    assert order == ["x-inner", "x-outer"]
    assert client.status == 200
    assert client.body == b"app read it"
    assert client.headers[b"x-inner"] == b"none"
    assert client.headers[b"x-outer"] == b"none"


@pytest.mark.parametrize(
    ("reads", "left"), [("nothing", b"abc"), ("body", b"abc"), ("stream", b""), ("piece", b"bc")]
)
def test_the_app_gets_a_body_that_the_middleware_has_read(around, reads, left):
    async def read(request, call_next):
        if reads == "body":
            assert await request.body() == b"abc"
        elif reads == "stream":
            assert [piece async for piece in request.stream()] == [b"a", b"b", b"c", b""]
        elif reads == "piece":
            pieces = request.stream()
            assert await pieces.__anext__() == b"a"
            await pieces.aclose()
        return await call_next(request)

    client = run(lambda: answer(around(around(echo, pass_on), read), b"a", b"b", b"c"))
    assert client.body == b"app read " + left


def test_pieces_are_made_when_they_are_taken(around):
    events = []

    async def pieces():
        for piece in (b"1", b"2", b"3"):
            events.append(piece)
            yield piece

    async def take_time(request, call_next):
        response = await call_next(request)
        given = response.body_iterator

        async def doubled():
            async for piece in given:
                for _ in range(10):
                    await asyncio.sleep(0)
                events.append(b"passed " + piece)
                yield piece * 2

        response.body_iterator = doubled()
        return response

    app = around(answering(StreamingResponse(pieces())), take_time)
    assert run(lambda: answer(app)).body == b"112233"
    assert events.index(b"passed 1") < events.index(b"3")


def test_an_answer_can_be_replaced(around):
    async def replace(request, call_next):
        response = await call_next(request)
        body = b"".join([piece async for piece in response.body_iterator])
        return Response(body.upper(), response.status_code)

    client = run(lambda: answer(around(echo, replace), b"it"))
    assert client.body == b"APP READ IT"
    assert client.headers[b"content-length"] == b"11"


def test_a_failure_before_the_answer_reaches_the_middleware(around):
    async def fail(scope, receive, send):
        raise ValueError("mine")

    async def answer_it(request, call_next):
        try:
            return await call_next(request)
        except ValueError as error:
            return PlainTextResponse(str(error), 418)

    client = run(lambda: answer(around(around(fail, pass_on), answer_it)))
    assert (client.status, client.body) == (418, b"mine")
    with pytest.raises(ValueError, match="mine"):
        run(lambda: answer(around(fail, pass_on)))


def test_a_failure_within_the_answer_is_raised_after_it(around):
    async def pieces():
        yield b"one"
        raise ValueError("mine")

    async def act():
        client = Client()
        with pytest.raises(ValueError, match="mine"):
            await client.ask(around(answering(StreamingResponse(pieces())), pass_on))
        return client

    assert run(act).body == b"one"


def test_an_app_must_answer(around):
    async def silent(scope, receive, send):
        pass

    with pytest.raises(RuntimeError, match="No response returned"):
        run(lambda: answer(around(silent, pass_on)))


def test_a_middleware_answers_itself(around):
    asked = []

    async def note(scope, receive, send):
        asked.append(scope["path"])

    async def refuse(request, call_next):
        return PlainTextResponse("no", 403)

    assert run(lambda: answer(around(note, refuse))).status == 403
    assert asked == []


def test_an_app_that_is_given_up_still_ends(around):
    events = []

    async def slow(scope, receive, send):
        await receive()
        while (await receive())["type"] != "http.disconnect":
            pass
        events.append("left")
        await PlainTextResponse("late")(scope, receive, send)
        events.append("end")

    async def give_up(request, call_next):
        with contextlib.suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(call_next(request), 0.01)
        return PlainTextResponse("too slow", 504)

    client = run(lambda: answer(around(slow, give_up)))
    assert (client.status, client.body) == (504, b"too slow")
    assert events == ["left", "end"]


def test_background_tasks_run_after_the_answer(around):
    async def act():
        client, events = Client(), []

        def after(name):
            return BackgroundTask(lambda: events.append((name, client.is_answered.is_set())))

        async def add(request, call_next):
            response = await call_next(request)
            response.background = after("middleware")
            return response

        app = answering(PlainTextResponse("ok", background=after("app")))
        await client.ask(around(app, add))
        return events

    assert run(act) == [("middleware", True), ("app", True)]


def test_a_client_that_leaves_ends_the_answer(around):
    async def endless():
        while True:
            yield b"1"
            await asyncio.sleep(0)

    async def act():
        client = Client()
        asking = asyncio.create_task(client.ask(around(around(app, pass_on), pass_on)))
        while len(client.body) < 3:
            await asyncio.sleep(0)
        client.leaves.set()
        await asking

    app = answering(StreamingResponse(endless()))
    run(act)


def test_a_failing_middleware_breaks_the_app_off(around):
    events = []

    async def wait(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await asyncio.Event().wait()
        finally:
            events.append("broken off")

    async def fail(request, call_next):
        await call_next(request)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run(lambda: answer(around(wait, fail)))
    assert events == ["broken off"]


def test_a_cancelled_request_breaks_the_app_off(around):
    events = []

    async def act():
        is_asked = asyncio.Event()

        async def wait(scope, receive, send):
            is_asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                events.append("broken off")

        asking = asyncio.create_task(answer(around(around(wait, pass_on), pass_on)))
        await is_asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    run(act)
    assert events == ["broken off"]


def test_context_variables_go_inwards(around):
    name = contextvars.ContextVar("name", default="none")

    async def tell(scope, receive, send):
        told = name.get()
        name.set("app's")
        await PlainTextResponse(told)(scope, receive, send)

    async def set_it(request, call_next):
        name.set("middleware's")
        response = await call_next(request)
        assert name.get() == "middleware's"
        return response

    assert run(lambda: answer(around(tell, set_it))).body == b"middleware's"


def test_only_dispatching_middlewares_are_replaced():
    class Mine(BaseHTTPMiddleware):
        def __init__(self, app, name):
            super().__init__(app)
            self.name = name

        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["x-mine"] = self.name
            return response

    class Special(Mine):
        async def __call__(self, scope, receive, send):
            await super().__call__(scope, receive, send)

    assert without_task_group(Special) is Special
    assert without_task_group(answering) is answering
    made = without_task_group(Mine)
    assert issubclass(made, Mine) and made is not Mine and made.__name__ == "Mine"
    client = run(lambda: answer(made(echo, "me")))
    assert client.headers[b"x-mine"] == b"me"


def test_the_app_of_a_server_has_the_replaced_middlewares():
    app = ls.LitServer(ls.LitAPI()).app
    app.middleware("http")(pass_on)
    assert app.user_middleware[0].cls.__call__ is without_task_group(BaseHTTPMiddleware).__call__
