"""The README's first program, and each program in `examples/` with a small model.

Those whose packages are not installed beside the tests are skipped, and say so.
"""

import importlib.util
import io
import json
import math
import os
import re
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import conftest
import pytest
from conftest import Server

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

# Nothing is fetched.
ENV = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

WITH_MODELS = {
    "text": ("torch", "transformers", "openai"),
    "embeddings": ("torch", "transformers", "sentence_transformers", "openai"),
    "speech": ("torch", "transformers", "av"),
    "rag": ("torch", "transformers", "sentence_transformers"),
    "llama": ("llama_cpp", "gguf", "openai"),
    "ocr": ("rapidocr_onnxruntime", "PIL"),
}


def needs(example):
    missing = [name for name in WITH_MODELS[example] if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def first_program():
    """Returns the first program of the README, and the calls with their answers below it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    program, calls = re.findall(r"^```(?:python)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[:2]
    return program, re.findall(r"^\$ curl (.*)\n(.*)$", calls, re.MULTILINE)


def test_the_first_program_of_the_readme_runs_as_it_is_pasted(run, tmp_path):
    program, calls = first_program()
    assert "port=8000" in program
    (tmp_path / "server.py").write_text(program.replace("port=8000", "port=0"), encoding="utf-8")
    # Without the packages of the tests, except litplex itself.
    block = "import sys; sys.modules.update(dict.fromkeys(('numpy', 'pydantic', 'fastapi')))\n"
    (tmp_path / "sitecustomize.py").write_text(block, encoding="utf-8")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    server = run([sys.executable, "server.py"], kind=Server, env=env).wait_until_ready()
    assert len(calls) == 2
    for command, answer in calls:
        url, *flags = shlex.split(command)
        given = dict(zip(flags[::2], flags[1::2]))
        headers = dict([given["-H"].split(": ")])
        path = url.removeprefix("localhost:8000")
        assert server.post(path, content=given["-d"], headers=headers).text == answer


def test_each_example_has_its_command_and_a_row_in_the_list():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "\n    pip install litplex" in text, path.name
        assert f"\n    python examples/{path.name}" in text, path.name
        assert f"[`{path.name}`]({path.name})" in listed


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Makes a small model of a kind, once."""
    made = {}

    def make(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            # Each maker imports packages that the others do not need.
            maker = ROOT / "tests" / ("tiny_gguf.py" if kind == "gguf" else "tiny_models.py")
            command = [sys.executable, maker, *([] if kind == "gguf" else [kind]), made[kind]]
            subprocess.run(command, check=True, env={**os.environ, **ENV}, capture_output=True)
        return made[kind]

    return make


@pytest.fixture
def example(run, monkeypatch):
    # The libraries alone take half a minute to import on a machine that has other work.
    monkeypatch.setattr(conftest, "PATIENCE", 240.0)

    def start(name, *arguments, port=0):
        command = [sys.executable, EXAMPLES / f"{name}.py", *arguments, "--port", port]
        return run(command, kind=Server, env=ENV).wait_until_ready()

    return start


def openai_client(server):
    import openai

    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@needs("text")
def test_text(example, model):
    server = example("text", model("text"))
    check_chat(server)
    refused = server.post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": "a" * 3000}]}
    )
    assert (refused.status_code, "takes less than 2048" in refused.text) == (422, True)


@needs("llama")
def test_llama(example, model):
    check_chat(example("llama", model("gguf") / "model.gguf", "--window", "512"))


def check_chat(server):
    question = {
        "model": "any",
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "temperature": 0,
        "max_tokens": 16,
    }
    with openai_client(server) as client:
        choice = client.chat.completions.create(**question).choices[0]
        assert choice.finish_reason == "length"
        assert choice.message.content
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(stream=True, **question)
            if chunk.choices
        ]
    assert "".join(pieces) == choice.message.content
    assert len([*filter(None, pieces)]) > 1


@needs("embeddings")
def test_embeddings(example, model):
    texts = ["a cat", "a kitten", "a cat"]
    with openai_client(example("embeddings", model("embeddings"))) as client:
        vectors = [
            item.embedding for item in client.embeddings.create(model="any", input=texts).data
        ]
        (alone,) = client.embeddings.create(model="any", input="a cat").data
    assert vectors[0] == vectors[2] != vectors[1]
    assert alone.embedding == pytest.approx(vectors[0], abs=1e-5)
    assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1, 1, 1], abs=1e-5)


def recording(seconds, rate):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        tone = (int(9000 * math.sin(n / 9)) for n in range(int(seconds * rate)))
        out.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in tone))
    return file.getvalue()


@needs("speech")
def test_speech(example, model):
    server = example("speech", model("whisper"))
    audio = recording(1.5, 22_050)
    as_body = server.post("/transcribe", content=audio, headers={"Content-Type": "audio/wav"})
    as_file = server.post("/transcribe", files={"file": ("talk.wav", audio, "audio/wav")})
    assert as_body.json() == as_file.json()
    assert as_body.json()["seconds"] == pytest.approx(1.5, abs=0.01)
    assert isinstance(as_body.json()["text"], str)
    for wrong in (b"no sound", b""):
        refused = server.post("/transcribe", content=wrong, headers={"Content-Type": "audio/wav"})
        assert (refused.status_code, "recording" in refused.text) == (422, True)


@needs("rag")
def test_rag(example, model, tmp_path):
    (tmp_path / "invoices.md").write_text("The invoice is due on Friday.\n\nIt is for paper.")
    (tmp_path / "cats.txt").write_text("A cat sleeps.\n\nA kitten plays.\n\nA dog barks.")
    # From where it is started, which the worker's directory is not without more.
    (tmp_path / "chat").symlink_to(model("text"))
    server = example("rag", ".", model("embeddings"), "./chat")
    answer = server.post("/ask", json={"question": "When is the invoice due?"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["answer"]
    assert set(answer.json()["sources"]) <= {"invoices.md", "cats.txt"}
    assert server.post("/ask", json="x").status_code == 422
    # The chat refuses so many tokens, and its message is passed on.
    refused = server.post("/ask", json={"question": "a" * 3000})
    assert (refused.status_code, "takes less than" in refused.text) == (422, True)


@needs("ocr")
def test_ocr(example):
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (480, 120), "white")
    font = ImageFont.load_default(48)
    ImageDraw.Draw(picture).text((20, 30), "INVOICE 2041", "black", font)
    file = io.BytesIO()
    picture.save(file, "PNG")
    server = example("ocr")
    as_body = server.post("/ocr", content=file.getvalue(), headers={"Content-Type": "image/png"})
    as_file = server.post("/ocr", files={"image": ("i.png", file.getvalue(), "image/png")})
    assert as_body.json() == as_file.json()
    assert "2041" in json.dumps(as_body.json())
    refused = server.post("/ocr", content=b"x", headers={"Content-Type": "image/png"})
    assert refused.status_code == 422
