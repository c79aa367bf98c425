"""The example that serves a vision-language model, with a tiny checkpoint made here."""

import base64
import importlib.util
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from conftest import Server

ROOT = Path(__file__).parents[2]
MISSING = [
    name
    for name in ("torch", "torchvision", "transformers", "PIL", "openai")
    if importlib.util.find_spec(name) is None
]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

# Nothing is fetched, and a few threads are enough.
ENV = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def png(color):
    """Returns a `data:` URL of an image of 20 by 20 pixels of one color."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(color) * 20) * 20)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(image).decode()


def asks(*parts):
    return [{"role": "user", "content": [*parts]}]


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


TEXT = {"type": "text", "text": "What is this?"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    maker = ROOT / "tests" / "tiny_vlm.py"
    subprocess.run([sys.executable, maker, folder], check=True, env={**os.environ, **ENV})
    return folder


@pytest.fixture
def server(run, checkpoint):
    command = [sys.executable, ROOT / "examples" / "vlm.py", checkpoint, "--port", "0"]
    return run(command, kind=Server, env=ENV).wait_until_ready()


@pytest.fixture
def client(server):
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_is_answered_as_a_whole_and_as_a_stream(client):
    question = {
        "model": "vlm",
        "messages": asks(image(png((255, 0, 0))), TEXT),
        "temperature": 0,
        "max_tokens": 24,
    }
    whole = client.chat.completions.create(**question)
    choice, usage = whole.choices[0], whole.usage
    assert (choice.finish_reason, usage.completion_tokens) == ("length", 24)
    assert usage.prompt_tokens > len(TEXT["text"]), "the image is tokens too"
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(stream=True, **question)
        if chunk.choices
    ]
    assert "".join(pieces) == choice.message.content
    assert len([*filter(None, pieces)]) > 1


def test_the_answer_depends_on_the_image(client):
    def answer(url):
        question = asks(image(url), TEXT)
        done = client.chat.completions.create(
            model="vlm", messages=question, temperature=0, max_tokens=64
        )
        return done.choices[0].message.content

    red, blue = png((255, 0, 0)), png((0, 0, 255))
    assert answer(red) == answer(red) != answer(blue)


def test_a_plain_request_is_streamed_and_a_client_that_leaves_ends_it(server):
    # So many take minutes, and the one worker is not free before.
    body = {"messages": asks(image(png((0, 255, 0)))), "stream": True, "max_tokens": 90_000}
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        lines = (line for line in response.iter_lines() if line.startswith("data: {"))
        first = [json.loads(next(lines).removeprefix("data: ")) for _ in range(3)]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in first)
    body = {"messages": asks(TEXT), "max_tokens": 2}
    answer = server.post("/v1/chat/completions", json=body).json()
    assert answer["usage"]["completion_tokens"] == 2


WRONG = [
    (image("https://example.com/a.png"), "must come as `data:image"),
    (image("data:image/png;base64,bm90IGFuIGltYWdl"), "an image cannot be read"),
    (image("data:image/png;base64,%%%"), "expected base64"),
    (image(png((1, 2, 3))[:-60]), "an image cannot be read"),
    ({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}, "input_audio"),
    ({"type": "text", "text": "a" * 100_001}, "takes less than 100000"),
]


def test_unsupported_inputs_are_refused_with_the_reason(server):
    for part, reason in WRONG:
        refused = server.post("/v1/chat/completions", json={"messages": asks(part, TEXT)})
        assert refused.status_code == 422, refused.text
        assert reason in refused.text
