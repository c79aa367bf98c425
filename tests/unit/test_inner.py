"""Requests of the app host on the inner socket: their form, their responses, and reuse."""

import asyncio
import contextlib

import pytest
from litplex._apphost._inner import BrokenOff, Inner

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


class Server:
    """Answers each request with the same bytes, in pieces of this size."""

    def __init__(self, answer, size):
        self.answer, self.size = answer, size
        self.connections = 0
        self.heads = []
        self.open = set()

    async def serve(self, reader, writer):
        self.connections += 1
        self.open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                if b"chunked" in self.heads[-1]:
                    await reader.readuntil(b"0\r\n\r\n")
                for start in range(0, len(self.answer), self.size):
                    writer.write(self.answer[start : start + self.size])
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()


def run(tmp_path, answer, act, size=1 << 16):
    async def main():
        path = str(tmp_path / "inner.sock")
        server = Server(answer, size)
        listening = await asyncio.start_unix_server(server.serve, path)
        inner = Inner(path)
        try:
            return await act(inner, server)
        finally:
            inner.close()
            for writer in server.open:
                writer.close()
            listening.close()

    return asyncio.run(asyncio.wait_for(main(), 20))


async def ask(inner, method="GET", headers=(), body=b"", target="/a"):
    connection = await inner.connect()
    with contextlib.closing(connection):
        await connection.ask(method, target, list(headers), body)
        status, headers = await connection.answer()
        return status, dict(headers), [piece async for piece in connection.pieces()]


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 16])
@pytest.mark.parametrize("answer", [WHOLE, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE])
def test_answers_are_read_however_they_come(tmp_path, answer, size):
    status, _, pieces = run(tmp_path, answer, lambda inner, _: ask(inner), size)
    assert status == 200
    assert b"".join(piece for piece, _ in pieces) == b"hello"
    assert [is_last for _, is_last in pieces] == [False] * (len(pieces) - 1) + [True]


def test_a_whole_answer_is_one_piece(tmp_path):
    _, headers, pieces = run(tmp_path, WHOLE, lambda inner, _: ask(inner))
    assert headers == {b"content-type": b"text/plain", b"content-length": b"5"}
    assert pieces == [(b"hello", True)]


def test_head_and_204_have_no_body(tmp_path):
    head = WHOLE.removesuffix(b"hello")
    _, _, pieces = run(tmp_path, head, lambda inner, _: ask(inner, "HEAD"))
    assert pieces == [(b"", True)]
    (tmp_path / "inner.sock").unlink(missing_ok=True)
    none = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert run(tmp_path, none, lambda inner, _: ask(inner))[2] == [(b"", True)]


@pytest.mark.parametrize("answer", [WHOLE[:-1], CHUNKED[:-3], WHOLE[:20]])
def test_an_answer_that_is_cut_off_is_broken(tmp_path, answer):
    async def act(inner, server):
        asking = asyncio.create_task(ask(inner))
        while not server.heads:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        for writer in server.open:
            writer.close()
        with pytest.raises(BrokenOff):
            await asking

    run(tmp_path, answer, act)


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE.replace(b"HTTP/1.1 200", b"HTTP/1.1 20x"),
        WHOLE.replace(b"HTTP/1.1 200", b"HTTP/1.0 200"),
        b"garbage\r\n\r\n" + WHOLE,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + WHOLE,
        WHOLE.replace(b": 5", b": -5"),
        WHOLE.replace(b": 5", b": +5"),
        WHOLE.replace(b": 5", b": 0_5"),
        WHOLE.replace(b": 5", b": 5\r\ncontent-length: 3"),
        WHOLE.replace(b": 5", b": 5\r\ntransfer-encoding: chunked"),
        WHOLE.replace(b": 5", b": 5\r\n folded"),
        WHOLE.replace(b"Content-Type:", b"Content-Type"),
        CHUNKED.replace(b": chunked", b": gzip, chunked"),
        CHUNKED.replace(b"\r\n3\r\n", b"\r\n-3\r\n"),
        CHUNKED.replace(b"\r\n3\r\n", b"\r\n0x3\r\n"),
        CHUNKED.replace(b"\r\n3\r\n", b"\r\n\r\n"),
        CHUNKED.replace(b"\r\n3\r\n", b"\r\n2\r\n"),
        CHUNKED.replace(b"\r\n3\r\n", b"\r\n3" + b" " * 2000),
    ],
)
def test_an_answer_that_is_not_http_is_broken(tmp_path, answer):
    async def act(inner, _):
        with pytest.raises(BrokenOff, match="not HTTP"):
            await ask(inner)

    run(tmp_path, answer, act)


@pytest.mark.parametrize("size", [1, 1 << 16])
def test_trailers_are_not_part_of_the_next_response(tmp_path, size):
    async def act(inner, server):
        for _ in range(3):
            _, _, pieces = await ask(inner)
            assert b"".join(piece for piece, _ in pieces) == b"hello"
        assert server.connections == 1

    trailers = CHUNKED.removesuffix(b"\r\n") + b"x-sum: 1\r\ny: 2\r\n\r\n"
    run(tmp_path, trailers, act, size)


def test_a_connection_is_used_again_only_after_a_complete_answer(tmp_path):
    async def act(inner, server):
        for _ in range(3):
            await ask(inner)
        assert server.connections == 1
        connection = await inner.connect()
        await connection.ask("GET", "/a", [], b"")
        await connection.answer()
        connection.close()
        await ask(inner)
        assert server.connections == 2
        for writer in server.open:
            writer.close()
        await asyncio.sleep(0.01)
        assert (await ask(inner))[0] == 200
        assert server.connections == 3

    run(tmp_path, WHOLE, act)


def test_a_connection_with_connection_close_is_not_used_again(tmp_path):
    async def act(inner, server):
        for _ in range(2):
            await ask(inner)
        assert server.connections == 2

    run(tmp_path, WHOLE.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n"), act)


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": [(b"x", b"1\r\nx-litplex: 2")]},
        {"headers": [(b"x\n", b"1")]},
        {"target": "/a HTTP/1.1\r\n\r\nGET /b"},
        {"target": "/a b"},
    ],
)
def test_a_header_cannot_become_a_request(tmp_path, wrong):
    async def act(inner, server):
        with pytest.raises(ValueError, match="a middleware made"):
            await ask(inner, **wrong)
        assert not server.heads

    run(tmp_path, WHOLE, act)


@pytest.mark.parametrize(("length", "says"), [(b"3", "longer"), (b"9", "shorter")])
def test_a_body_has_its_declared_length(tmp_path, length, says):
    async def act(inner, _):
        connection = await inner.connect()
        with contextlib.closing(connection):
            await connection.ask("POST", "/a", [(b"content-length", length)], None)
            with pytest.raises(ValueError, match=says):
                await connection.send_piece(b"hello")
                await connection.end_body()

    run(tmp_path, WHOLE, act)


def test_a_body_in_pieces_is_chunked(tmp_path):
    async def act(inner, server):
        connection = await inner.connect()
        with contextlib.closing(connection):
            await connection.ask("POST", "/a", [(b"transfer-encoding", b"chunked")], None)
            for piece in (b"one", b"", b"two"):
                await connection.send_piece(piece)
            await connection.end_body()
            assert (await connection.answer())[0] == 200
        assert server.heads == [b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"]

    run(tmp_path, WHOLE, act)
