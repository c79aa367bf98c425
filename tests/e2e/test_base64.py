"""Fields that clients send as base64 reach hooks as bytes, wherever they are decoded."""

import base64
import hashlib
import json
import os

import pytest

pytest.importorskip("pydantic")

PROGRAM = """
import base64
import hashlib
from typing import Annotated, Optional, Union

from pydantic import Base64Bytes, BaseModel, Field, model_validator

Bytes = Annotated[bytes, ls.Base64]

# The texts that the worker has decoded itself.
decoded_here = []
b64decode = base64.b64decode
base64.b64decode = lambda *given, **how: decoded_here.append(1) or b64decode(*given, **how)

class Page(BaseModel):
    scan: Bytes
    number: int = 0

class Mine(BaseModel):
    image: Bytes
    mask: Optional[Bytes] = None
    pages: list[Page] = []
    named: dict[str, Bytes] = Field({}, alias="byName")
    other: str = ""

class Theirs(BaseModel):
    image: Base64Bytes
    pages: list[Base64Bytes] = []

class Looked(BaseModel):
    image: Base64Bytes

    @model_validator(mode="before")
    @classmethod
    def _look(cls, value):
        assert isinstance(value["image"], str)
        return value

class Either(BaseModel):
    image: Union[str, Bytes]

def shown(value):
    if isinstance(value, bytes):
        assert type(value) is bytes, type(value)
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, BaseModel):
        return shown(dict(value))
    if isinstance(value, dict):
        return {key: shown(each) for key, each in value.items()}
    return list(map(shown, value)) if isinstance(value, list) else value

def typed(annotation):
    class API(ls.LitAPI):
        def decode_request(self, request):
            return request

        decode_request.__annotations__["request"] = annotation

        def predict(self, x):
            here = len(decoded_here)
            decoded_here.clear()
            return {"got": shown(x), "decoded_here": here}
    return API()

class Batched(ls.LitAPI):
    def decode_request(self, request: Mine, context):
        return request.image

    def predict(self, xs):
        return [shown(x) for x in xs]

class Priced(Batched):
    def cost(self, request):
        return len(request.image)

class Async(ls.LitAPI):
    async def decode_request(self, request: Mine):
        return request.image

    async def predict(self, x):
        return shown(x)

class Stream(ls.LitAPI):
    def decode_request(self, request: Mine):
        return request.image

    def predict(self, x):
        yield shown(x)

class Caller(ls.LitAPI):
    mine = ls.endpoint("/mine")
    theirs = ls.endpoint("/theirs")

    def predict(self, x):
        raw = bytes(range(256)) * 10
        return {
            "raw": self.mine({"image": raw})["got"]["image"] == shown(raw),
            "mine": self.mine({"image": x})["got"]["image"],
            "theirs": self.theirs({"image": x})["got"]["image"],
        }

class Answer(ls.LitAPI):
    def predict(self, x):
        return {"scan": bytes([0, 255]), "number": 3}

    def encode_response(self, output) -> Page:
        return output

class Chat(ls.LitAPI):
    def predict(self, request):
        for part in request.messages[-1].content:
            if part.type == "image_url":
                image = part.image_url
                assert image.data is None or type(image.data) is bytes
                yield f"{image.url} {shown(image.data)} {image.detail == 'low'};"
            elif part.type == "input_audio":
                yield f"{part.input_audio.format} {shown(part.input_audio.data)};"
        yield f"decoded here: {len(decoded_here)}"
        decoded_here.clear()

class Text(ls.LitAPI):
    def predict(self, request):
        part = request.messages[-1].content[0]
        yield part.image_url.url

if __name__ == "__main__":
    kinds = {"mine": Mine, "theirs": Theirs, "whole": Bytes, "looked": Looked, "either": Either}
    batches = {"max_batch_size": 4, "batch_timeout": 0.01}
    ls.run_servers(
        *(ls.LitServer(typed(kind), path=f"/{name}") for name, kind in kinds.items()),
        ls.LitServer(Batched(**batches), path="/batched", cost="other:length"),
        ls.LitServer(Priced(**batches), path="/priced"),
        ls.LitServer(Async(), path="/async"),
        ls.LitServer(Stream(stream=True), path="/stream"),
        ls.LitServer(Caller(), path="/caller"),
        ls.LitServer(Answer(), path="/answer"),
        ls.LitServer(Chat(spec=ls.OpenAISpec(decode_media=True)), path="/seen/chat/completions"),
        ls.LitServer(Text(spec=ls.OpenAISpec()), path="/text/chat/completions"),
        port=0,
    )
"""

LARGE, SMALL = os.urandom(200_001), os.urandom(2_000)


def text_of(raw):
    return base64.b64encode(raw).decode()


def digest(raw):
    return hashlib.sha256(raw).hexdigest()


def post(server, path, value):
    body = value if isinstance(value, (bytes, str)) else json.dumps(value)
    response = server.post(path, content=body, headers={"Content-Type": "application/json"})
    return response.status_code, response.json()


def check_bodies(server):
    """Checks that each field is decoded by the server, at any depth and of any length."""
    for raw in (LARGE, SMALL):
        pages = [{"scan": text_of(SMALL), "number": 1}, {"scan": text_of(raw)}]
        names = {"a": text_of(raw), "b": text_of(SMALL)}
        body = {"pages": pages, "image": text_of(raw), "byName": names, "other": text_of(SMALL)}
        assert post(server, "/mine", body) == (
            200,
            {
                "got": {
                    "image": digest(raw),
                    "mask": None,
                    "pages": [
                        {"scan": digest(SMALL), "number": 1},
                        {"scan": digest(raw), "number": 0},
                    ],
                    "named": {"a": digest(raw), "b": digest(SMALL)},
                    "other": text_of(SMALL),
                },
                "decoded_here": 0,
            },
        )
        theirs = {"image": text_of(raw), "pages": [text_of(SMALL), text_of(b"short")]}
        assert post(server, "/theirs", theirs) == (
            200,
            {
                "got": {"image": digest(raw), "pages": [digest(SMALL), digest(b"short")]},
                # The short one.
                "decoded_here": 1,
            },
        )
        whole = post(server, "/whole", json.dumps(text_of(raw)))
        assert whole == (200, {"got": digest(raw), "decoded_here": 0})


def check_what_the_worker_decodes(server):
    """Checks that what the server leaves in the body is decoded by the worker."""
    text = text_of(LARGE)
    lines = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    utf16 = json.dumps({"image": text}).encode("utf-16")
    twice = '{"image": "' + text_of(SMALL) + '", "image": "' + text + '"}'
    for body in ({"image": lines}, utf16, twice):
        status, answer = post(server, "/mine", body)
        assert (status, answer["got"]["image"]) == (200, digest(LARGE))
    # Validators of the program see what the client sent.
    assert post(server, "/looked", {"image": text}) == (
        200,
        {"got": {"image": digest(LARGE)}, "decoded_here": 1},
    )
    status, answer = post(server, "/either", {"image": text})
    assert (status, answer["got"]["image"]) == (200, text)
    # pydantic skips what is not in the alphabet.
    status, answer = post(server, "/theirs", {"image": "!" + text})
    assert (status, answer["got"]["image"]) == (200, digest(LARGE))


def check_errors(server):
    """Checks that an invalid text is a 422 that names the field, as pydantic words it."""
    for path, at in (("/mine", ["image"]), ("/theirs", ["image"]), ("/whole", [])):
        for text, reason in (("abc", "Incorrect padding"), ("A" * 2_001, "Invalid base64")):
            body = {"image": text} if at else text
            status, answer = post(server, path, json.dumps(body))
            assert status == 422, answer
            [error] = answer["detail"]
            assert (error["type"], error["loc"]) == ("base64_decode", ["body", *at])
            assert error["msg"].startswith(f"Base64 decoding error: '{reason}"), error["msg"]
            assert error["input"] == text
    foreign = post(server, "/mine", {"image": "!" + text_of(SMALL)})
    assert (foreign[0], foreign[1]["detail"][0]["type"]) == (422, "base64_decode")
    status, answer = post(server, "/mine", {"image": 5, "mask": text_of(LARGE)})
    assert status == 422
    assert [error["loc"] for error in answer["detail"]] == [["body", "image"]]


def chat(server, path, *parts, **fields):
    body = {"model": "m", "messages": [{"role": "user", "content": list(parts)}], **fields}
    status, answer = post(server, path, body)
    if status != 200:
        return status, answer["error"]["message"]
    return status, [choice["message"]["content"] for choice in answer["choices"]]


def image(url, **fields):
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def check_chats(server):
    """Checks that images and recordings of chats are bytes where the spec asks for it."""
    large, small = ("data:image/png;base64," + text_of(raw) for raw in (LARGE, b"small"))
    head = "data:image/png;base64,"
    sound = {"type": "input_audio", "input_audio": {"data": text_of(LARGE), "format": "wav"}}
    parts = (
        image(large, detail="low"),
        image(small),
        {"type": "image_url", "image_url": large},
        image("https://a.b/c.png"),
        sound,
    )
    seen = (
        f"{head} {digest(LARGE)} True;{head} {digest(b'small')} False;"
        f"{head} {digest(LARGE)} False;https://a.b/c.png None False;"
        f"wav {digest(LARGE)};decoded here: "
    )
    # The short one is decoded by the worker.
    assert chat(server, "/seen/chat/completions", *parts) == (200, [seen + "1"])
    assert chat(server, "/seen/chat/completions", *parts[:1], n=2) == (
        200,
        [f"{head} {digest(LARGE)} True;decoded here: 0"] * 2,
    )
    status, message = chat(server, "/seen/chat/completions", image("data:image/png;base64,a"))
    assert (status, message.split(":")[0]) == (
        422,
        "invalid `messages[0].content[0].image_url`",
    )
    assert chat(server, "/text/chat/completions", image(large)) == (200, [large])


def test_fields_in_base64_reach_hooks_as_bytes(serve):
    server = serve(PROGRAM)
    check_bodies(server)
    check_what_the_worker_decodes(server)
    check_errors(server)
    check_chats(server)
    body = {"image": text_of(LARGE), "other": "abc"}
    for path in ("/batched", "/priced", "/async"):
        assert post(server, path, body) == (200, digest(LARGE)), path
    assert server.post("/stream", json=body).text == digest(LARGE)
    assert post(server, "/caller", json.dumps(text_of(LARGE))) == (
        200,
        {"raw": True, "mine": digest(LARGE), "theirs": digest(LARGE)},
    )
    assert post(server, "/answer", "0") == (200, {"scan": "AP8=", "number": 3})
    described = server.client.get("/openapi.json").json()["components"]["schemas"]["Page"]
    assert described["properties"]["scan"] == {
        "type": "string",
        "format": "base64",
        "title": "Scan",
    }
