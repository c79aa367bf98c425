"""JSON through the C core says the same as the documented calls."""

import collections
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import json
import math
import pathlib
import re
import types
import uuid

import numpy
import pydantic
import pytest
from litplex._worker._json import MalformedBody, dumps, loads


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2.5, null, true, "ß\\n"]}',
        " [1] ",
        "4.0",
        '"x"',
        "NaN",
        "12345678901234567890123",
    ],
)
def test_values_are_read_as_json_reads_them(text):
    expected = json.loads(text)
    got = loads(memoryview(text.encode()))
    assert got == expected or (math.isnan(got) and math.isnan(expected))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"a": 1', "line 1 column 8"),
        (b"", "line 1 column 1"),
        (b'{"a": 1} x', "Extra data"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[" * 200_000, "nested too deeply"),
    ],
    ids=["cut", "empty", "extra", "encoding", "depth"],
)
def test_a_mistake_is_named_with_its_place(body, says):
    with pytest.raises(MalformedBody, match=says):
        loads(memoryview(body))


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    at: datetime.date = pydantic.Field(alias="date")


class Plain:
    def __init__(self):
        self.x = 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True, "ß"]}, '{"a":[1,2.5,null,true,"ß"]}'),
        (numpy.array([1.5, 2.0]), "[1.5,2.0]"),
        ({"n": numpy.float32(0.5)}, '{"n":0.5}'),
        (Model(date=datetime.date(2026, 1, 2)), '{"date":"2026-01-02"}'),
        (Point(3), '{"x":3}'),
        (Colour.RED, '"red"'),
        (datetime.datetime(2026, 1, 2, 3), '"2026-01-02T03:00:00"'),
        (datetime.timedelta(minutes=1.5), "90.0"),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (ipaddress.ip_address("::1"), '"::1"'),
        (pydantic.SecretStr("x"), '"**********"'),
        (pathlib.PurePosixPath("/a"), '"/a"'),
        (re.compile("a+"), '"a+"'),
        ([decimal.Decimal("1.50"), decimal.Decimal(10)], "[1.5,10]"),
        ({"b": "ß".encode()}, '{"b":"ß"}'),
        ([{1}, collections.deque([2]), (n for n in [3])], "[[1],[2],[3]]"),
        (types.MappingProxyType({"a": 1}), '{"a":1}'),
        (Plain(), '{"x":1}'),
        ((1, 2), "[1,2]"),
    ],
)
def test_what_hooks_return_becomes_json(value, text):
    assert dumps(value) == text.encode()


def test_what_json_cannot_hold_is_an_error_that_says_what_to_do():
    with pytest.raises(TypeError, match="convert it in encode_response"):
        dumps(object())
    with pytest.raises(ValueError, match="JSON"):
        dumps(math.nan)
