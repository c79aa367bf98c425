"""JSON through the C core has the same results as the documented calls."""

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

import fastapi.encoders
import numpy
import pydantic
import pytest
from litplex._worker.wire.json import MalformedBody, Unsendable, dumps, loads


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2.5, null, true, "ß\\n"]}',
        " [1] ",
        "4.0",
        '"x"',
        "12345678901234567890123",
    ],
)
def test_values_are_read_as_json_reads_them(text):
    assert loads(memoryview(text.encode())) == json.loads(text)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"a": 1', "line 1 column 8"),
        (b"", "line 1 column 1"),
        (b'{"a": 1} x', "Extra data"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[" * 200_000, "nested too deeply"),
        (b"NaN", "NaN is not JSON"),
        (b' {"x": [-Infinity]}', "-Infinity is not JSON"),
        (b"[1.5, 1e400]", "the number 1e400 is too large"),
        (b"[1.5,1E400]", "the number 1E400 is too large"),
        (b"9" * 309 + b".5", f"the number {'9' * 32}… is too large"),
        (b'{"x": -1E+999}', "too large"),
        (b"9" * 400 + b".0", "too large"),
        (b"[" + b"0.5," * 2000 + b"1e400]", "the number 1e400 is too large"),
        (b"[" + b"0.5," * 2000 + b"9" * 400 + b".5]", "the number 9{32}… is too large"),
        (b"[" + b"0.5," * 2000 + b"-" + b"1" * 250 + b"e90]", "is too large for a float"),
        (b"[" + b"0.5," * 2000 + b"1" * 250 + b".5E+90]", "is too large for a float"),
        (b"1" * 5000, "an integer has too many digits"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\uDC01": 1}', "half of a surrogate pair"),
        (b'["' + b"a" * 20_000 + b'\\uD83D"]', "half of a surrogate pair"),
    ],
    ids=[
        *("cut", "empty", "extra", "encoding", "depth", "nan", "infinity", "exponent"),
        *("large letter", "fewest digits"),
        *("negative", "digits", "long", "long digits", "long exponent", "long both", "integer"),
        *("surrogate", "key", "long text"),
    ],
)
def test_an_error_is_reported_with_its_position(body, says):
    with pytest.raises(MalformedBody, match=says):
        loads(memoryview(body))


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Small(enum.IntEnum):
    ONE = 1


class Text(str, enum.Enum):
    A = "a"


class Broken:
    def tolist(self):
        raise RuntimeError("secret")


async def _hook():
    return 1


COROUTINE = _hook()
COROUTINE.close()
ITSELF: list = []
ITSELF.append(ITSELF)


@dataclasses.dataclass
class Anything:
    x: object


class Model(pydantic.BaseModel):
    at: datetime.date = pydantic.Field(alias="date")


class Plain:
    def __init__(self):
        self.x = 1


class Row:
    """As those of databases and of pydantic 1: it iterates over pairs."""

    def __init__(self):
        self._sa_instance_state = object()
        self.hidden = object()

    def __iter__(self):
        return iter([("a", uuid.UUID(int=1)), ("b", 2)])


class Mapped:
    def __init__(self):
        self._sa_instance_state = object()
        self.id = 1


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
        ([decimal.Decimal("1E+2"), decimal.Decimal("-3")], "[100,-3]"),
        (Row(), '{"a":"00000000-0000-0000-0000-000000000001","b":2}'),
        ([{"a": 1}.items(), range(0)], '[{"a":1},{}]'),
        (Mapped(), '{"id":1}'),
    ],
)
def test_results_of_hooks_become_json(value, text):
    assert dumps(value) == text.encode()


class Shy(str):
    """A text that does not show its own characters."""

    def __format__(self, _):
        return "other"


@pytest.mark.parametrize("character", [*map(chr, range(128)), "ß", "日", "🙂"], ids=ascii)
def test_long_texts_are_escaped_as_short_ones(character):
    text = "x" * 2000 + character + "y" * 2000
    for value in (text, [text], {"a": text, text: 1}, {"a": [text]}, [1] * 20 + [text], Shy(text)):
        expected = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        assert dumps(value) == expected.encode()


def test_a_long_text_with_half_a_surrogate_pair_is_refused():
    with pytest.raises(Unsendable, match=r'answer\["a"\] has half of a surrogate pair'):
        dumps({"a": "x" * 2000 + "\ud800"})


def test_many_digits_beside_many_floats_are_read():
    floats, integer = [0.5] * 2000, int("7" * 400)
    text = json.dumps([*floats, integer])
    assert loads(memoryview(text.encode())) == [*floats, integer]
    text = text.replace("]", f", 0.{'7' * 400}, {'1' * 250}.5e50]")
    assert loads(memoryview(text.encode()))[-2:] == [7 / 9, float("1" * 250 + "e50")]


def test_pairs_of_surrogates_and_small_numbers_are_read():
    assert loads(memoryview(b'"\\ud83d\\ude00"')) == "😀"
    assert loads(memoryview(b"[1e-400, 1e99, 1.5e300]")) == [0.0, 1e99, 1.5e300]
    assert loads(memoryview(b'{"t": "1e400 NaN \\\\ud800"}')) == {"t": "1e400 NaN \\ud800"}


@pytest.mark.parametrize(
    "value",
    [
        {uuid.UUID(int=1): 1},
        {datetime.date(2026, 1, 2): {Colour.RED: [1]}},
        {1: 1, 2.5: 2, None: 3, False: 4, "a": 5},
        {pathlib.PurePosixPath("/a"): datetime.timedelta(1), "x": {decimal.Decimal("1.5"): 2}},
        [Anything({uuid.UUID(int=2): {b"k": (1, 2)}})],
        {Small.ONE: Small.ONE, Text.A: Text.A},
        [Row(), {"a": 1}.items(), Mapped(), decimal.Decimal("1E+2")],
    ],
)
def test_values_and_keys_are_encoded_as_in_fastapi(value):
    encoded = fastapi.encoders.jsonable_encoder(value)
    assert json.loads(dumps(value)) == json.loads(json.dumps(encoded))


def test_a_generator_beside_such_a_key_is_read_once():
    assert dumps({"g": (n for n in [1, 2]), uuid.UUID(int=0): {3}}).startswith(b'{"g":[1,2],"0000')


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "answer is of type object; convert it in encode_response, or return a Response"),
        (math.nan, "answer is NaN, which JSON does not have"),
        ({"a": [0, 1, 2, Anything(object())]}, 'answer["a"][3].x is of type object'),
        ({"e": numpy.array([1.0, math.inf])}, 'answer["e"][1] is inf'),
        ([{"t": "\ud800"}], 'answer[0]["t"] has half of a surrogate pair (U+D800)'),
        ({"k": {(1, 2): 3}}, 'the key (1, 2) of answer["k"] is of type tuple'),
        ({math.inf: 1}, "a key of answer is inf"),
        ([Broken()], "answer[0] is of type test_json.Broken, which cannot be converted"),
        (ITSELF, "answer contains itself"),
        ([zip("a", [1])], "answer[0] is of type zip"),
        ([COROUTINE], "answer[0] is of type coroutine; the hook that returns it must await it"),
    ],
)
def test_a_value_that_json_cannot_hold_is_named_with_its_path(value, says):
    with pytest.raises(Unsendable) as raised:
        dumps(value)
    assert says in str(raised.value)
    assert raised.value.client_detail.startswith("Internal server error: the answer")
    assert "secret" not in raised.value.client_detail
