"""Which fields of a request the server decodes from base64, and what the worker makes of them."""

import dataclasses
from typing import Annotated, Any, Optional, Union

import pytest

pydantic = pytest.importorskip("pydantic")

import litplex as ls  # noqa: E402
from litplex._worker.hooks import base64_fields  # noqa: E402
from litplex._worker.wire import frames, values  # noqa: E402
from pydantic import (  # noqa: E402
    AliasPath,
    Base64Bytes,
    Base64UrlBytes,
    BaseModel,
    BeforeValidator,
    Field,
    RootModel,
    TypeAdapter,
)

Bytes = Annotated[bytes, ls.Base64]


class Page(BaseModel):
    scan: Bytes
    inner: Optional["Page"] = None


class Everything(BaseModel):
    image: Bytes
    aliased: Bytes = Field(alias="inJson")
    elsewhere: Bytes = Field(validation_alias=AliasPath("a", "b"))
    limited: Annotated[bytes, ls.Base64, Field(max_length=9)]
    looked: Annotated[Bytes, BeforeValidator(str)]
    either: Union[Bytes, str]
    pages: list[Page]
    named: dict[str, Optional[Bytes]]
    theirs: Base64Bytes
    theirs_limited: Annotated[Base64Bytes, Field(max_length=9)]
    theirs_in_url: Base64UrlBytes
    plain: bytes


@dataclasses.dataclass
class Plain:
    image: Bytes


class Root(RootModel[list[Bytes]]):
    pass


class Own(BaseModel):
    image: Bytes

    def __init__(self, **given):
        super().__init__(**given)


@pytest.mark.parametrize(
    ("annotation", "paths"),
    [
        (Bytes, [()]),
        (Optional[Bytes], [()]),
        (Base64Bytes, [()]),
        (bytes, []),
        (Plain, [("image",)]),
        (Root, [(None,)]),
        (Own, []),
        (Page, [("scan",)]),
        (
            Everything,
            [
                ("image",),
                ("inJson",),
                ("limited",),
                ("pages", None, "scan"),
                ("named", None),
                ("theirs",),
                ("theirs_limited",),
            ],
        ),
    ],
)
def test_a_field_is_declared_where_no_validator_sees_its_text(annotation, paths):
    found = base64_fields.base64_fields(TypeAdapter(annotation).core_schema)
    assert list(found) == paths


def test_a_text_is_read_strictly_and_bytes_are_taken_as_they_are():
    check = TypeAdapter(Bytes).validate_python
    assert check("aGk=") == check(" aG\nk=\t") == check(b"hi") == b"hi"
    assert TypeAdapter(Bytes).validate_json('"aGk="') == b"hi"
    assert TypeAdapter(Bytes).dump_json(b"hi") == b'"aGk="'
    assert TypeAdapter(Bytes).dump_python(b"hi") == b"hi"
    for wrong in ("aGk", "aG-k", "aGk=!", "ä", 5):
        with pytest.raises(pydantic.ValidationError):
            check(wrong)


def test_a_model_for_which_a_request_was_not_decoded_gets_the_text(monkeypatch):
    taken = base64_fields.taker({("image",): bytes})
    monkeypatch.setattr(values, "take_decoded", taken)
    # A `data:` URL is no base64, except in chats.
    assert taken(["image"], b"hi", "data:,") == "data:,aGk="
    in_chat = base64_fields.taker({("image",): base64_fields.Media})
    assert in_chat(["image"], b"hi", "data:,") == ("data:,", b"hi")
    body = b'{"image":null,"mask":null}' + b" " * 6 + b"hi" + b" " * 14 + b"ho"
    parts: list[dict[str, Any]] = [
        {"offset": 0, "length": 26},
        {"offset": 32, "length": 2, "path": ["image"], "base64": True},
        {"offset": 48, "length": 2, "path": ["mask"], "base64": True},
    ]
    assert values.unpack(parts, body) == {"image": b"hi", "mask": "aG8="}
    monkeypatch.setattr(values, "take_decoded", values.as_text)
    assert values.unpack(parts, memoryview(body)) == {"image": "aGk=", "mask": "aG8="}


def test_an_untyped_model_gets_the_text_of_what_was_decoded(worker):
    server = worker(
        """
        class API(ls.LitAPI):
            def predict(self, x):
                return x
        """
    )
    assert server.traits["base64"] == []
    body = b'{"image":null}' + b" " * 2 + b"hi"
    parts = [
        {"offset": 0, "length": 14},
        {"offset": 16, "length": 2, "path": ["image"], "base64": True},
    ]
    payload = frames.with_meta({"content": {"packed": parts}}, body)
    server.send("data", frames.encode(frames.REQUEST, payload, flags=frames.META, id=1))
    assert server.answers(1) == {1: (200, {"image": "aGk="})}
    assert server.end() == 0
