"""`litplex call` calls endpoints as their schemas ask, and `litplex init` writes a project."""

import base64
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import zlib

import pytest
from certificates import Authority
from conftest import LITPLEX, PRELUDE, Server, wait_until

SERVER = """
    import time
    from typing import Annotated

    from pydantic import BaseModel

    class Text(BaseModel):
        text: str
        top: int = 3

    class Two(BaseModel):
        left: str
        right: str

    class Picture(BaseModel):
        image: bytes
        title: str = "none"

    class Echo(ls.LitAPI):
        def predict(self, x):
            return len(x) if isinstance(x, bytes) else x

    class Typed(ls.LitAPI):
        def decode_request(self, request: Text):
            return request

        def predict(self, x):
            return {"text": x.text, "top": x.top}

    class Pair(ls.LitAPI):
        def decode_request(self, request: Two):
            return request

        def predict(self, x):
            return x.left + x.right

    class Upload(ls.LitAPI):
        def decode_request(self, request: ls.UploadFile):
            return [request.filename, request.content_type, len(request.file.read())]

        def predict(self, x):
            return x

    class Encoded(ls.LitAPI):
        def decode_request(self, request: Picture):
            return [len(request.image), request.title]

        def predict(self, x):
            return x

    class Draw(ls.LitAPI):
        def predict(self, x):
            return ls.Response(content=bytes.fromhex(x), media_type="image/png")

    class Rows(ls.LitAPI):
        def predict(self, x):
            yield {"row": x}
            if x == "fail":
                raise ls.HTTPException(500, "no second row")
            yield {"row": [0.5] * 384}

    class Letters(ls.LitAPI):
        def predict(self, x):
            yield from x

    class Endless(ls.LitAPI):
        def predict(self, x):
            print("began", flush=True)
            try:
                while True:
                    yield {"tick": 1}
                    time.sleep(0.02)
            finally:
                print("left", flush=True)

    class Chat(ls.LitAPI):
        def predict(self, request):
            yield "you said "
            content = request.messages[-1].content
            yield content if isinstance(content, str) else content[-1].type

    class Embed(ls.LitAPI):
        def predict(self, x):
            return [0.25] * 384

    def serve(api, path, **options):
        return ls.LitServer(api, path=path, **options)

    if __name__ == "__main__":
        ls.run_servers(
            serve(Echo(), "/echo"),
            serve(Typed(), "/typed", name="typed"),
            serve(Pair(), "/pair"),
            serve(Upload(), "/upload"),
            serve(Encoded(), "/encoded"),
            serve(Draw(), "/draw"),
            serve(Rows(stream=True), "/rows"),
            serve(Letters(stream=True), "/letters"),
            serve(Endless(stream=True), "/endless"),
            serve(Echo(), "/secret", api_keys={"ann": "env:ANN_KEY"}),
            ls.LitServer(Chat(spec=ls.OpenAISpec())),
            ls.LitServer(Embed(spec=ls.OpenAIEmbeddingSpec())),
            port=0,
            server_timing=True,
            request_id=True,
        )
"""


def png(width, height):
    """Returns the bytes of an image."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(height)))
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + end


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with an endpoint of each kind, and the environment in which it is found."""
    pytest.importorskip("pydantic")
    runtime = tempfile.mkdtemp(prefix="lm", dir="/tmp")
    directory = tmp_path_factory.mktemp("served")
    (directory / "server.py").write_text(PRELUDE + textwrap.dedent(SERVER))
    environment = {"XDG_RUNTIME_DIR": runtime, "TMPDIR": runtime}
    key = {"ANN_KEY": "the key of ann"}
    server = Server([sys.executable, "server.py"], directory, {**environment, **key})
    try:
        yield server.wait_until_ready(), environment
    finally:
        server.stop()
        server.kill()
        shutil.rmtree(runtime)


@pytest.fixture
def call(served):
    """Calls an endpoint; returns the exit status, the output and the errors."""
    _, environment = served

    def run(*args, stdin=b"", env=None):
        done = subprocess.run(
            [LITPLEX, "call", *map(str, args)],
            input=stdin,
            env={**os.environ, **environment, **(env or {})},
            capture_output=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr.decode()

    return run


@pytest.fixture
def answer(call):
    """Calls an endpoint that succeeds; returns the output as it is."""

    def run(*args, **options):
        status, out, err = call(*args, "--json", **options)
        assert status == 0, err
        return json.loads(out)

    return run


def test_a_value_is_put_where_the_schema_has_a_place(answer):
    assert answer("/echo", '{"a": [1, 2.5]}') == {"a": [1, 2.5]}
    assert answer("/echo", "some text") == "some text"
    assert answer("/echo", "-7") == -7
    assert answer("/typed", "some text") == {"text": "some text", "top": 3}
    assert answer("/typed", "42") == {"text": "42", "top": 3}
    assert answer("/typed", '{"text": "a", "top": 5}') == {"text": "a", "top": 5}
    assert answer("typed", "by name")["text"] == "by name"
    assert answer("/typed", "-f", "-", stdin=b"from a pipe\n")["text"] == "from a pipe"


def test_an_input_that_does_not_fit_is_told_what_does(call):
    for arguments in (["a text"], []):
        status, out, err = call("/pair", *arguments)
        assert (status, out) == (2, b"")
        assert '{"left": string, "right": string}' in err
        assert ("got a text" if arguments else "got nothing") in err
    status, _, err = call("/pair", '{"left": "a"}')
    assert status == 1
    assert "422" in err and "right: Field required" in err and '"right": string' in err
    status, _, err = call("/typed", "-f", "no-such-file")
    assert status == 2 and "no-such-file" in err


def test_a_file_is_sent_as_the_schema_asks(answer, tmp_path):
    image = png(64, 48)
    page = tmp_path / "page.png"
    page.write_bytes(image)
    assert answer("/echo", "-f", page) == len(image)
    assert answer("/upload", "-f", page) == ["page.png", "image/png", len(image)]
    assert answer("/upload", "-f", "-", stdin=b"a\n") == ["stdin", "application/octet-stream", 2]
    encoded = len(base64.b64encode(image))
    assert answer("/encoded", "-f", page, '{"title": "x"}') == [encoded, "x"]
    said = answer("/v1/chat/completions", "what is this?", "-f", page)
    assert said["choices"][0]["message"]["content"] == "you said image_url"
    notes = tmp_path / "notes.bin"
    notes.write_bytes(b'{"a": 1}')
    assert answer("/echo", "-f", notes, "-H", "Content-Type: application/x-any") == 8


def test_large_values_are_shown_as_pictures(call, tmp_path):
    status, out, err = call("/v1/embeddings", "some text")
    assert status == 0, err
    assert b"[384] float, min 0.2500, max 0.2500" in out
    status, out, err = call("/v1/embeddings", "some text", "--json")
    assert json.loads(out)["data"][0]["embedding"] == [0.25] * 384
    image = png(64, 48)
    status, out, _ = call("/draw", image.hex())
    assert (status, out) == (0, f"image/png, 64 x 48, {len(image)} B\n".encode())
    assert call("/draw", image.hex(), "--json")[1] == image
    drawn = tmp_path / "drawn.png"
    assert call("/draw", image.hex(), "-o", drawn)[:2] == (0, b"")
    assert drawn.read_bytes() == image


def test_the_status_and_the_times_go_to_standard_error(call):
    status, out, err = call("/echo", "[1]")
    assert (status, out) == (0, b"[1]\n")
    for part in ("200 OK, 3 B; ", "first byte ", "total ", "server total;dur=", "request "):
        assert part in err


def test_streams_are_shown_as_values_texts_and_events(call):
    out = call("/rows", "a")[1].decode().splitlines()
    assert out == ['{"row": "a"}', '{"row": [384] float, min 0.5000, max 0.5000}']
    lines = call("/rows", "a", "--json")[1].splitlines()
    assert [*map(json.loads, lines)] == [{"row": "a"}, {"row": [0.5] * 384}]
    events = call("/rows", "a", "--json", "--stream")[1].splitlines()
    assert events == lines
    assert call("/letters", "größe")[1].decode() == "größe\n"
    chat = ["/v1/chat/completions", "hello"]
    assert call(*chat)[1] == b"you said hello\n"
    assert call(*chat, "--stream")[1] == b"you said hello\n"
    chunks = [*map(json.loads, call(*chat, "--stream", "--json")[1].splitlines())]
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    assert texts[:2] == ["you said ", "hello"]


@pytest.mark.parametrize("flags", [[], ["--stream"], ["--json"]])
def test_an_error_in_a_stream_is_an_error_of_the_command(call, flags):
    status, out, err = call("/rows", "fail", *flags)
    assert status == 1
    assert b'"fail"' in out and "the stream failed: no second row" in err


def test_ctrl_c_closes_the_connection_of_a_stream(served, run):
    server, environment = served
    calls = run([LITPLEX, "call", "/endless", "x"], env=environment)
    # The first values come while the stream goes on.
    calls.wait_for_line('^{"tick": 1}$')
    calls.signal(signal.SIGINT)
    assert calls.wait() == -signal.SIGINT
    wait_until(lambda: any("left" in line for line in server.lines))


def test_a_key_is_sent_and_never_shown(call, answer):
    status, out, err = call("/secret", "x")
    assert (status, out) == (1, b"") and "401" in err and "LITPLEX_KEY" in err
    assert answer("/secret", "x", "--key", "the key of ann") == "x"
    assert answer("/secret", "x", env={"LITPLEX_KEY": "the key of ann"}) == "x"
    assert answer("/secret", "x", "-H", "X-API-Key: the key of ann") == "x"
    for wrong in (
        ["--key", "key\nof bob"],
        ["-H", "Authorization key\nof bob"],
        ["--key", "of bob"],
    ):
        status, out, err = call("/secret", "x", *wrong)
        assert status in (1, 2) and "of bob" not in err


def test_a_url_is_called_without_the_admin_socket(served, call, answer):
    server, _ = served
    elsewhere = {"XDG_RUNTIME_DIR": "/nonexistent", "TMPDIR": "/nonexistent"}
    said = answer("typed", "a", "--url", server.url, env=elsewhere)
    assert said == {"text": "a", "top": 3}
    port = server.url.rpartition(":")[2]
    assert answer("/typed", "a", "--url", f"127.0.0.1:{port}/", env=elsewhere)["text"] == "a"
    assert answer("/typed", "a", "--port", port)["text"] == "a"
    status, _, err = call("/typed", "a", "--url", "http://127.0.0.1:9", env=elsewhere)
    assert status == 1 and "no response of http://127.0.0.1:9" in err


def test_https_is_spoken_with_certificates_that_are_trusted(serve, litplex, runtime, tmp_path):
    authority = Authority(tmp_path, "ours")
    pair = authority.issue("server")
    clients = Authority(tmp_path, "theirs")
    client = clients.issue("client")
    certificate = tmp_path / "client.pem"
    certificate.write_text(client.cert.read_text() + client.key.read_text())
    cert = ["--cert", str(certificate)]
    server = serve(
        f"""
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        ca = {str(clients.cert)!r}
        files = dict(tls_cert={str(pair.cert)!r}, tls_key={str(pair.key)!r}, tls_client_ca=ca)
        ls.LitServer(Echo(), path="/echo").run(port=0, **files)
        """,
        env=runtime,
    )
    assert server.url.startswith("https://")
    for trusted in (["--ca", str(authority.cert)], ["--insecure"]):
        status, out, err = litplex("call", "/echo", "a", *trusted, *cert)
        assert (status, out) == (0, "a\n"), err
    status, out, err = litplex("call", "/echo", "a", *cert)
    assert (status, out) == (1, "") and "--ca" in err
    status, out, _ = litplex("call", "/echo", "a", "--ca", str(authority.cert))
    assert (status, out) == (1, "")


def test_what_the_server_refuses_is_an_error(call):
    status, out, err = call("/nope", "1")
    assert (status, out) == (1, b"") and "404" in err and "no endpoint `/nope`" in err
    status, out, err = call("/nope", "1", "--json")
    assert status == 1 and "no endpoint" in json.loads(out)["detail"]
    status, _, err = call("nope", "1")
    assert status == 1 and "/typed (typed)" in err
    status, _, err = call("/typed", "a", "--timeout", "0")
    assert status == 2 and "greater than 0" in err
    status, _, err = call("/endless", "x", "--timeout", "0.3")
    assert status == 1 and "200 OK" in err


def test_a_new_project_works_as_it_is_written(run, runtime, litplex, tmp_path):
    project = tmp_path / "words"
    status, out, err = litplex("init", str(project))
    assert status == 0, err
    assert "litplex serve litplex.toml" in out
    written = {path.name: path.read_bytes() for path in project.iterdir()}
    assert {"server.py", "litplex.toml", "Dockerfile", ".gitignore"} < set(written)

    (project / "requirements.txt").write_text("mine")
    (project / "Dockerfile").unlink()
    status, _, err = litplex("init", str(project))
    assert status == 2 and "`server.py`" in err and "`Dockerfile`" not in err
    assert not (project / "Dockerfile").exists()
    assert (project / "requirements.txt").read_text() == "mine"

    config = project / "litplex.toml"
    status, out, err = litplex("check", str(config))
    assert status == 0 and "/words" in out, err
    server = run([LITPLEX, "serve", config, "--port", "0"], env=runtime)
    server.wait_for_line("ready: all endpoints")
    status, out, err = litplex("call", "/words", "a fine day")
    assert (status, out) == (0, '{"words": 3}\n'), err
    assert server.stop() == 0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", project]
    tested = run([*command, "--rootdir", project], env=runtime)
    assert tested.wait() == 0, tested.output
    assert "3 passed" in tested.output
