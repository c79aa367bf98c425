"""The annotations of hooks decide how requests are read and responses are written."""

import json

import pytest
from litplex._worker.wire import frames
from typed_cases import CASES, MISSING, TYPES

ECHO = """
class API(ls.{base}):
    def decode_request(self, request: {annotation}):
        return request

    def predict(self, x):
        return repr(x)
"""


def send(server, id, content, body, *, more=False):
    flags = frames.MORE if more else 0
    if content != "json" or server.traits["context"]:
        meta = {"content": content, "context": {"method": "POST", "remaining_ms": 60_000}}
        body, flags = frames.with_meta(meta, body), flags | frames.META
    server.send("data", frames.encode(frames.REQUEST, body, flags=flags, id=id))


def answer_of(expected):
    if isinstance(expected, str):
        return 200, expected
    names = ("type", "loc", "msg", "input", "ctx")
    return 422, {"detail": [dict(zip(names, error)) for error in expected]}


@pytest.mark.parametrize("annotation", CASES)
def test_a_request_is_read_as_it_is_annotated(worker, annotation):
    server = worker(TYPES + ECHO.format(base="LitAPI", annotation=annotation))
    for id, (content, body, expected) in enumerate(CASES[annotation]):
        send(server, id, content, body)
        assert server.answers(1) == {id: answer_of(expected)}, body
    assert server.end() == 0
    assert server.errors == ""


LATER = """
from __future__ import annotations
import typing
from litplex import LitAPI
if typing.TYPE_CHECKING:
    from elsewhere import Nothing

class Base(LitAPI):
    def decode_request(self, item: Item, context) -> Nothing:
        context["decoded"] = True
        return item.name

class Item(__import__("pydantic").BaseModel):
    name: str
"""


def test_annotations_may_be_texts(worker, tmp_path):
    (tmp_path / "later.py").write_text(LATER)
    server = worker(
        """
        from later import Base

        class API(Base):
            def predict(self, x):
                return x
        """
    )
    send(server, 1, "json", b'{"name": "a"}')
    send(server, 2, "json", b"{}")
    assert server.answers(2) == {
        1: (200, "a"),
        2: answer_of([("missing", ["body", "name"], "Field required", {})]),
    }
    assert server.end() == 0


KINDS = {
    "batch": ("LitAPI", {"max_batch_size": 3}, "    def predict(self, x): return x"),
    "async": ("LitAPI", {}, "    async def predict(self, x): return x"),
    "async batch": (
        "LitAPI",
        {"max_batch_size": 3},
        "    async def predict(self, x): return x",
    ),
    "continuous": (
        "ContinuousAPI",
        {"max_batch_size": 3},
        "    def admit(self, x, context): return x\n"
        "    def step(self, sequences): return [ls.Last(x) for x in sequences]\n"
        "    def encode_response(self, output): return output[0]",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_of_several_fails_alone(worker, kind):
    base, args, hooks = KINDS[kind]
    decode = ECHO.format(base=base, annotation="Point").partition("    def predict")[0]
    server = worker(TYPES + decode + hooks, args)
    for id, body in enumerate([b'{"x": 1}', b"", b'{"x": 3}'], 1):
        send(server, id, "json", body, more=id < 3)
    assert server.answers(3) == {
        1: (200, {"x": 1}),
        2: answer_of([MISSING]),
        3: (200, {"x": 3}),
    }
    assert server.end() == 0


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_stream_ends_before_it_began(worker, kind, size):
    hook = f"\n    {kind} predict(self, x):\n        yield x"
    model = ECHO.format(base="LitAPI", annotation="Point").partition("\n    def predict")[0]
    server = worker(TYPES + model + hook, {"stream": True, "max_batch_size": size})
    send(server, 1, "json", b"")
    assert server.items(ends=1) == {1: [422]}
    assert server.end() == 0


def test_a_cost_is_of_what_the_annotation_gives(worker):
    cost = "\n    def cost(self, request): return request.x"
    server = worker(TYPES + ECHO.format(base="LitAPI", annotation="Point") + cost)
    assert server.measure({"x": 2})[0] == 200
    status, payload = server.measure({"x": "y"})
    assert (status, json.loads(payload)["detail"][0]["loc"]) == (422, ["body", "x"])
    assert server.end() == 0


@pytest.mark.parametrize("body", [b'{"x": "\xff"}', b'{"x": [NaN]}', b'{"x": "\\ud800"}'])
def test_a_body_that_is_neither_text_nor_json_is_a_bad_request(worker, body):
    server = worker(TYPES + ECHO.format(base="LitAPI", annotation="Point"))
    send(server, 1, "json", body)
    assert server.answers(1)[1][0] == 400
    assert server.end() == 0


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ("'Nothing'", "`Nothing`, which cannot be evaluated (NameError"),
        ("socket.socket", "`socket.socket`, and pydantic cannot check it: Unable to generate"),
        ("Annotated[int, Depends()]", "litplex does not know `Depends`"),
        ("Nowhere[int]", '`pip install "litplex[typed]"` in its environment, or remove the'),
    ],
)
def test_an_invalid_annotation_fails_the_setup_and_says_what_to_do(worker, annotation, says):
    hide = "sys.modules['pydantic'] = None\nNowhere = list\n" if "Nowhere" in annotation else ""
    model = ECHO.format(base="LitAPI", annotation=annotation)
    reason = worker(f"import socket\n{TYPES}{hide}{model}").traits["reason"]
    assert reason.startswith("`request` of `decode_request` is annotated `")
    assert says in reason
    assert "remove the annotation" in reason


ANSWER = """
from typing import Optional, Union
import pydantic

class Out(pydantic.BaseModel):
    a: int
    b: int = pydantic.Field(2, alias="bee")

class More(Out):
    secret: str = "s"

class API(ls.LitAPI):
    def predict(self, x):
        return More(a=1) if x == "more" else x

    {kind} encode_response(self, output, context) -> "{answer}":
        return output
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_answer_is_held_to_its_annotation(worker, kind):
    server = worker(ANSWER.format(kind=kind, answer="Optional[Out]"))
    for id, value in enumerate([{"a": 1, "x": 2}, {"a": "1", "bee": 3}, "more", None]):
        server.request(id, value)
    assert server.answers(4) == {
        0: (200, {"a": 1, "bee": 2}),
        1: (200, {"a": 1, "bee": 3}),
        2: (200, {"a": 1, "bee": 2}),
        3: (200, None),
    }
    assert server.errors == ""
    server.request(4, {"a": "q"})
    assert server.answers(1) == {4: (500, {"detail": "Internal server error"})}
    assert server.end() == 0
    assert "ValidationError: 1 validation error for" in server.errors


def test_items_of_a_stream_are_sent_as_they_are(worker):
    model = ANSWER.format(kind="def", answer="Out").replace("return More", "yield More")
    server = worker(model, {"stream": True})
    server.request(1, {"a": 1, "x": 2})
    assert server.items(ends=1) == {1: [{"a": 1, "x": 2}, 0]}
    assert server.end() == 0


def test_an_answer_that_cannot_be_checked_fails_the_setup(worker):
    server = worker(ANSWER.format(kind="def", answer="Union[Out, ls.Response]"))
    assert server.traits["reason"].startswith("what `encode_response` returns is annotated")
