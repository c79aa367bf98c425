"""Streamed answers: framing, timing, errors, and clients that leave."""

import contextlib
import json
import threading

import httpx
import pytest

STREAMS = """
    import time

    class Count(ls.LitAPI):
        def predict(self, request):
            if request.get("teapot"):
                raise ls.HTTPException(418, "short and stout")
            try:
                for n in range(request["n"]):
                    if n == request.get("break_at"):
                        raise RuntimeError("broke")
                    if n == request.get("pause_at"):
                        time.sleep(600)
                    yield request["text"] if "text" in request else {"n": n}
            finally:
                print("generator closed")

    class Refuses(ls.LitAPI):
        '''Raises in the hook that it is told, after so many items.'''
        def decode_request(self, request):
            self.fail(request, "decode_request")
            return request
        def predict(self, request):
            for n in range(request.get("after", 0)):
                yield n
            self.fail(request, "predict")
            yield "done"
        def fail(self, request, hook):
            if request["hook"] == hook:
                detail = {"why": 1.5777777777770001, "z": 12345678901234567890123, "a": None}
                raise ls.HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})

    class Slowly(Refuses):
        async def predict(self, request):
            for n in range(request.get("after", 0)):
                yield n
            self.fail(request, "predict")
            yield "done"

    class Together(Refuses):
        def predict(self, requests):
            self.fail(requests[0], "predict")
            yield ["done"] * len(requests)

    ls.run_servers(
        ls.LitServer(Count(stream=True), path="/count", timeout=5),
        ls.LitServer(Refuses(stream=True), path="/refuses"),
        ls.LitServer(Slowly(stream=True), path="/slowly"),
        ls.LitServer(Together(stream=True, max_batch_size=2), path="/together"),
        port=0,
    )
"""


def lines(response):
    return [json.loads(line) for line in response.text.splitlines()]


def test_values_are_lines_of_json(serve):
    server = serve(STREAMS)
    response = server.post("/count", json={"n": 1000})
    assert response.headers["content-type"] == "application/x-ndjson"
    assert lines(response) == [{"n": n} for n in range(1000)]


def test_an_error_before_the_first_item_is_the_whole_answer(serve):
    server = serve(STREAMS)
    detail = '{"detail":{"why":1.5777777777770001,"z":12345678901234567890123,"a":null}}'
    for path in ("/refuses", "/slowly", "/together"):
        for hook in ("decode_request", "predict"):
            answer = server.post(path, json={"hook": hook})
            assert (answer.status_code, answer.text) == (401, detail), (path, hook)
            assert answer.headers["www-authenticate"] == "Bearer", (path, hook)
        assert server.post(path, json={"hook": "none"}).text == "done"
    for path in ("/refuses", "/slowly"):
        post = server.client.stream("POST", path, json={"hook": "predict", "after": 1})
        with post as answer, pytest.raises(httpx.RemoteProtocolError):
            assert answer.status_code == 200
            text = b""
            for piece in answer.iter_bytes():
                text += piece
        assert b"1.5777777777770001" in text and b"12345678901234567890123" in text


def test_the_stream_option_of_a_server_wins(serve):
    server = serve(STREAMS.replace("Count(stream=True), ", "Count(), stream=True, "))
    assert lines(server.post("/count", json={"n": 2})) == [{"n": 0}, {"n": 1}]


def test_events_for_a_client_that_asks_for_them(serve):
    server = serve(STREAMS)
    asked = {"Accept": "text/event-stream"}
    response = server.post("/count", json={"n": 2, "text": "a\nb"}, headers=asked)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.text == "data: a\ndata: b\n\n" * 2


def test_text_is_sent_as_it_is(serve):
    server = serve(STREAMS)
    response = server.post("/count", json={"n": 3, "text": "ß "})
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == "ß ß ß "


def test_an_empty_stream_is_an_answer(serve):
    response = serve(STREAMS).post("/count", json={"n": 0})
    assert (response.status_code, response.content) == (200, b"")


def test_an_error_before_the_first_value_has_its_own_status(serve):
    server = serve(STREAMS)
    assert server.post("/count", json={"teapot": True}).status_code == 418
    assert server.post("/count", json={"n": 1, "break_at": 0}).status_code == 500


def test_an_error_in_the_middle_is_seen(serve):
    server = serve(STREAMS)
    received = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        server.client.stream("POST", "/count", json={"n": 9, "break_at": 2}) as response,
    ):
        for piece in response.iter_raw():
            received += piece
    *good, error = map(json.loads, received.splitlines())
    assert good == [{"n": 0}, {"n": 1}]
    assert error == {"error": {"status": 500, "detail": "Internal server error"}}


def test_text_that_breaks_off_has_no_end(serve):
    server = serve(STREAMS)
    with pytest.raises(httpx.RemoteProtocolError):
        server.post("/count", json={"n": 9, "text": "x", "break_at": 2})


def test_values_before_a_pause_arrive_before_its_end(serve):
    server = serve(STREAMS)
    with server.client.stream("POST", "/count", json={"n": 9, "pause_at": 3}) as response:
        received = b""
        for piece in response.iter_raw():
            received += piece
            if received.count(b"\n") == 3:
                break
    assert received.count(b"\n") == 3


def test_a_client_that_leaves_closes_the_generator(serve):
    server = serve(STREAMS)
    with server.client.stream("POST", "/count", json={"n": 10**12}) as response:
        next(response.iter_raw())
    server.wait_for_line("generator closed")
    assert lines(server.post("/count", json={"n": 1})) == [{"n": 0}]


def test_a_client_that_does_not_read_holds_its_own_stream_back_only(serve):
    server = serve("""
        class Flood(ls.LitAPI):
            def predict(self, request):
                for n in range(200):
                    yield "x" * 1_000_000
                print("flood is over")

        class Square(ls.LitAPI):
            def predict(self, x):
                return x * x

        ls.run_servers(
            ls.LitServer(Flood(stream=True), path="/flood"),
            ls.LitServer(Square(), path="/square"),
            port=0,
        )
    """)
    with server.client.stream("POST", "/flood", json={}) as response:
        pieces = response.iter_raw()
        next(pieces)
        assert [server.post("/square", json=n).json() for n in range(50)] == [
            n * n for n in range(50)
        ]
        assert "flood is over" not in server.output
        assert sum(map(len, pieces)) > 150_000_000
    server.wait_for_line("flood is over")


def test_streams_of_many_clients_do_not_mix(serve):
    server = serve(STREAMS)
    texts = [f"<{n}>" for n in range(12)]
    received = {}

    def call(text):
        with contextlib.suppress(httpx.HTTPError):
            received[text] = httpx.post(
                f"{server.url}/count", json={"n": 500, "text": text}, timeout=30
            ).text

    threads = [threading.Thread(target=call, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert received == {text: text * 500 for text in texts}
