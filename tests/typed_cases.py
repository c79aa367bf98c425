"""The responses of FastAPI 0.165 with pydantic 2 to typed requests, by type."""

from typing import Any

TYPES = """
from dataclasses import dataclass
from typing import Annotated, Any, Dict, List, Optional, Union
import pydantic

class Item(pydantic.BaseModel):
    name: str
    size: int = 1

class Odd(pydantic.BaseModel):
    n: int = pydantic.Field(gt=0, alias="number")

    @pydantic.field_validator("n")
    @classmethod
    def check(cls, n):
        if n % 2 == 0:
            raise ValueError("must be odd")
        return n

@dataclass
class Point:
    x: int

class Request(pydantic.BaseModel):
    x: int

class Tagged(pydantic.BaseModel):
    tags: List[int]
    of: str = pydantic.Field("x", alias="from")

class Form:
    pass

class File(Form):
    pass

class Depends(Form):
    pass

Form.__module__ = File.__module__ = Depends.__module__ = "fastapi.params"
"""
NO_DICT = "Input should be a valid dictionary or object to extract fields from"
NO_INT = "Input should be a valid integer, unable to parse string as an integer"
MISSING = ("missing", ["body"], "Field required", None)
NO_FIELD = ("missing", ["body", "request"], "Field required", None)
NO_UPLOAD = "Value error, Expected UploadFile, received: <class 'str'>"

FORM = {"form": [{"name": "name", "length": 1}]}
TEXT = {"form": [{"name": "request", "length": 2}]}
EMPTY = {"form": [{"name": "request", "length": 0}]}
TAGS = {"form": [{"name": name, "length": 1} for name in ("tags", "tags", "from")]}
FILE = {"name": "request", "filename": "f.txt", "content_type": "text/plain", "length": 2}
FILES = {"form": [FILE, {**FILE, "filename": "g.txt"}]}
NO_FILE = {"form": [{**FILE, "filename": "", "length": 0}]}
OTHER = {"form": [{**FILE, "name": "other"}]}

# For each annotation: the content type, the body, and the value that the model gets or the errors.
CASES: dict[str, list[tuple[Any, bytes, Any]]] = {
    "Item": [
        ("json", b'{"name": "a"}', "Item(name='a', size=1)"),
        ("json", b"{}", [("missing", ["body", "name"], "Field required", {})]),
        (
            "json",
            b'{"name": 1, "size": "x"}',
            [
                ("string_type", ["body", "name"], "Input should be a valid string", 1),
                ("int_parsing", ["body", "size"], NO_INT, "x"),
            ],
        ),
        ("json", b"", [MISSING]),
        ("json", b"[1]", [("model_attributes_type", ["body"], NO_DICT, [1])]),
        ("json", b"null", [("model_attributes_type", ["body"], NO_DICT, None)]),
        (
            "json",
            b'{"name":',
            [("json_invalid", ["body", 8], "JSON decode error", {}, {"error": "Expecting value"})],
        ),
        (FORM, b"a", [("model_attributes_type", ["body"], NO_DICT, "name=a")]),
        ({"raw": "text/html"}, b"<p>", [("model_attributes_type", ["body"], NO_DICT, "<p>")]),
    ],
    "Odd": [
        ("json", b'{"number": 3}', "Odd(n=3)"),
        (
            "json",
            b'{"number": 2}',
            [("value_error", ["body", "number"], "Value error, must be odd", 2, {"error": {}})],
        ),
        (
            "json",
            b'{"number": -1}',
            [("greater_than", ["body", "number"], "Input should be greater than 0", -1, {"gt": 0})],
        ),
    ],
    "List[Item]": [
        ("json", b'[{"name": "a"}]', "[Item(name='a', size=1)]"),
        (
            "json",
            b'[{"name": "a"}, {"size": 2}]',
            [("missing", ["body", 1, "name"], "Field required", {"size": 2})],
        ),
        ("json", b"{}", [("list_type", ["body"], "Input should be a valid list", {})]),
    ],
    "Dict[str, int]": [
        ("json", b'{"a": "1"}', "{'a': 1}"),
        ("json", b'{"a": "x"}', [("int_parsing", ["body", "a"], NO_INT, "x")]),
    ],
    "Optional[Item]": [
        ("json", b"null", "None"),
        ("json", b"", [MISSING]),
    ],
    "Point": [
        ("json", b'{"x": 3}', "Point(x=3)"),
        (
            "json",
            b"5",
            [
                (
                    "dataclass_type",
                    ["body"],
                    "Input should be a dictionary or an instance of Point",
                    5,
                    {"class_name": "Point"},
                )
            ],
        ),
    ],
    "Annotated[List[int], pydantic.Field(max_length=2)]": [
        ("json", b"[1, 2]", "[1, 2]"),
        (
            "json",
            b"[1, 2, 3]",
            [
                (
                    "too_long",
                    ["body"],
                    "List should have at most 2 items after validation, not 3",
                    [1, 2, 3],
                    {"field_type": "List", "max_length": 2, "actual_length": 3},
                )
            ],
        ),
    ],
    "Request": [("json", b'{"x": 1}', "Request(x=1)")],
    "ls.UploadFile": [
        (FILES, b"hiho", "UploadFile(filename='g.txt', size=2)"),
        (OTHER, b"hi", [NO_FIELD]),
        (NO_FILE, b"", [NO_FIELD]),
        ("json", b'{"a": 1}', [NO_FIELD]),
        ("json", b"", [NO_FIELD]),
        (
            TEXT,
            b"hi",
            [("value_error", ["body", "request"], NO_UPLOAD, "hi", {"error": {}})],
        ),
    ],
    "List[ls.UploadFile]": [
        (
            FILES,
            b"hiho",
            "[UploadFile(filename='f.txt', size=2), UploadFile(filename='g.txt', size=2)]",
        ),
        (OTHER, b"hi", [NO_FIELD]),
    ],
    "Annotated[bytes, File()]": [(FILES, b"hiho", "b'ho'"), (OTHER, b"hi", [NO_FIELD])],
    "Annotated[str, Form()]": [
        (TEXT, b"hi", "'hi'"),
        (FORM, b"a", [NO_FIELD]),
        (EMPTY, b"", [NO_FIELD]),
        ("json", b'{"request": "hi"}', [NO_FIELD]),
    ],
    "Annotated[int, Form()]": [
        (TEXT, b"10", "10"),
        (TEXT, b"hi", [("int_parsing", ["body", "request"], NO_INT, "hi")]),
    ],
    "Annotated[Tagged, Form()]": [
        (TAGS, b"123", "Tagged(tags=[1, 2], of='3')"),
        (FORM, b"a", [("missing", ["body", "tags"], "Field required", {"name": "a"})]),
    ],
    # Here FastAPI checks the type, or looks for the request in the query.
    "Any": [("json", b"[1]", "[1]")],
    "Optional[dict]": [("json", b"[1]", "[1]"), (FORM, b"a", "{'name': 'a'}")],
    "Dict[str, Any]": [("json", b"[1]", "[1]")],
    "bytes": [({"raw": "image/png"}, b"\xff", r"b'\xff'")],
    "'elsewhere.Request'": [("json", b"[1]", "[1]")],
}
