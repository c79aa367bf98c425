"""JSON as fast as the standard library can.

Most of the time that ``json.loads`` and ``json.dumps`` take on a small body goes into their Python
wrappers. Here the C core behind them is called directly, and the documented calls are the
fallback: for interpreters without that core, and for whatever the core refuses.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections import deque
from json import encoder as _encoder
from types import GeneratorType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litplex._worker.wire.frames import Payload

_SETTINGS: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
_SENT_AS_TEXT = ("uuid", "ipaddress", "pydantic.networks", "pydantic.types")
# Each float is checked for an overflow by a function in Python, by which a list of floats takes a
# third longer to read. A text that begins like one is instead searched for the sign of an overflow:
# an exponent of three digits, or else more than 200 digits, whose exponent may have two.
_SAMPLE = 1024
# A float overflows with an exponent, or with more than 300 digits: a shorter text without an "e"
# has no such float.
_SHORT = 300
_MANY_POINTS = 32
_LARGE_EXPONENTS = (re.compile(r"e\+?[0-9]{3}").search, re.compile(r"E\+?[0-9]{3}").search)
_DIGITS_AS_ZEROS = bytes(ord("0") if chr(byte).isdigit() else byte for byte in range(128)).ljust(
    256
)
_MANY_DIGITS = b"0" * 200
# In texts of ASCII that is mostly escapes, looking at the value is faster than a search.
_MEDIUM = 16 * 1024
_search_surrogate = re.compile(r"\\u[dD]").search
# The core takes 2 ns for each character of a text that it writes. In a text of ASCII, a search for
# each of the characters that JSON escapes takes less than a fifth of that. It begins in Python: for
# a short text that alone takes longer.
_LONG = 512
_ESCAPED = ('"', "\\", *map(chr, range(32)))
# The most members of a value among which a long text is searched.
_LOOKED_AT = 8


class MalformedBody(ValueError):
    """The body of a request is not JSON; the message says where."""


def _refuse_constant(name: str) -> None:
    raise MalformedBody(f"malformed JSON body: {name} is not JSON")


def _finite(text: str) -> Any:
    number = float(text)
    if number - number:  # Only an infinity does not cancel itself out.
        shown = text if len(text) <= 32 else f"{text[:32]}…"
        raise MalformedBody(f"malformed JSON body: the number {shown} is too large for a float")
    return number


_PLAIN = json.JSONDecoder(parse_constant=_refuse_constant)
_CHECKED = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_scan = getattr(_PLAIN, "scan_once")  # noqa: B009  (not in its type)
_scan_checked = getattr(_CHECKED, "scan_once")  # noqa: B009


def loads(payload: Payload) -> Any:
    """Returns the value of a JSON body, as RFC 8259 has it: without NaN and infinities.

    Raises:
        MalformedBody: with the position of the first error.
    """
    try:
        text = str(payload, "utf-8")
        if len(text) < _SHORT and "e" not in text and "E" not in text:
            value, end = _scan(text, 0)
        else:
            scan = _scan_checked if len(text) <= _SAMPLE else _scan_for(text)
            value, end = scan(text, 0)
        if end == len(text) and "\\" not in text:
            return value
        is_read = end == len(text)
    except MalformedBody:
        raise
    except (StopIteration, ValueError, RecursionError):
        is_read = False
    if not is_read:
        text, encoding = _text_of(bytes(payload))
        value = _described(text, encoding)
    if "\\u" in text and (len(text) <= _MEDIUM or _search_surrogate(text)):
        _check_surrogates(value)
    return value


def _scan_for(text: str) -> Any:
    """Returns the scanner for a text of more than a sample: the fast one where it has many floats,
    and none that could be too large."""
    if text.count(".", 0, _SAMPLE) <= _MANY_POINTS:
        return _scan_checked
    return _scan_checked if _may_overflow(text) else _scan


def _may_overflow(text: str) -> bool:
    return any(search(text) for search in _LARGE_EXPONENTS) or (
        _MANY_DIGITS in text.encode().translate(_DIGITS_AS_ZEROS)
    )


def _described(text: str, encoding: str) -> Any:
    """Reads what has white space around the value, another encoding, or an error that is then
    described."""
    try:
        return _CHECKED.decode(text)
    except MalformedBody:
        raise
    except RecursionError:
        raise MalformedBody("malformed JSON body: nested too deeply") from None
    except ValueError as error:
        if not isinstance(error, json.JSONDecodeError):
            raise MalformedBody("malformed JSON body: an integer has too many digits") from None
        read_as = "" if encoding == "UTF-8" else f"not UTF-8, and read as {encoding}: "
        raise MalformedBody(f"malformed JSON body: {read_as}{error}") from error


def _text_of(body: bytes) -> Any:
    """Returns the text of a body in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark, as
    ``json.loads`` finds out, and the name of its encoding."""
    encoding = json.detect_encoding(body)
    name = encoding.replace("-sig", "").upper()
    try:
        return body.decode(encoding), name
    except UnicodeDecodeError as error:
        raise MalformedBody(f"malformed JSON body: not {name} at byte {error.start}") from None


def _check_surrogates(value: Any) -> None:
    try:
        _dumps(value)
    except UnicodeEncodeError as error:
        half = ord(error.object[error.start])
        raise MalformedBody(
            f"malformed JSON body: \\u{half:04x} is half of a surrogate pair"
        ) from None


class Unsendable(ValueError):
    """A value that JSON cannot hold, and its place in the response.

    Attributes:
        fault: The place and the value.
        client_detail: The text for clients: the place, without the text of an exception.
    """

    def __init__(
        self, place: str, what: str, remedy: str = "", error: BaseException | None = None
    ) -> None:
        said = f" ({type(error).__name__}: {error})" if error is not None else ""
        self.fault = f"{place} {what}"
        super().__init__(f"cannot be sent as JSON: {self.fault}{said}{remedy}")
        self.client_detail = (
            f"Internal server error: the answer cannot be sent as JSON: {self.fault}"
        )


def as_sent(value: Any) -> Any:
    """Returns a value that is not one of JSON's own types as FastAPI sends it."""
    if isinstance(value, GeneratorType):
        # Where something else cannot be sent as it is, a generator would be read twice.
        raise TypeError("a generator is read by the thorough encoder")
    return _converted(value)


def _converted(value: Any) -> Any:
    """Returns what is encoded in place of a value that is none of JSON's own types.

    Raises:
        TypeError: nothing is.
    """
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    for name in ("tolist", "isoformat", "total_seconds"):
        method = getattr(value, name, None)
        if callable(method):
            return method()
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (set, frozenset, deque, GeneratorType)):
        return list(value)
    kind = type(value)
    if kind.__name__ == "Decimal":
        exponent = value.as_tuple().exponent
        return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)
    if hasattr(value, "__fspath__") or kind.__module__ in _SENT_AS_TEXT:
        return str(value)
    if isinstance(value, re.Pattern):
        return value.pattern
    if hasattr(value, "_value_"):
        return value._value_
    if _holds_pairs(value):
        return dict(value)
    if getattr(value, "__dict__", None) and not callable(value):
        # SQLAlchemy keeps its own state in objects under such a name.
        return {name: each for name, each in vars(value).items() if not name.startswith("_sa")}
    raise TypeError(f"a {kind.__name__}")


def _holds_pairs(value: Any) -> Any:
    """Returns whether a value is a mapping, or iterates over pairs of names and values.

    An iterator is not looked into: that would use it up.
    """
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return True
    if not hasattr(value, "__iter__") or hasattr(value, "__next__"):
        return False
    try:
        return all(len(pair) == 2 and not isinstance(pair, str) for pair in value)
    except TypeError:
        return False


def _make_fast_dumps(default: Any) -> Any:
    make_encoder: Any = vars(_encoder)["c_make_encoder"]
    # The positions are those of CPython 3.9 to 3.14: markers, default, string encoder, indent,
    # two separators, sort_keys, skipkeys, allow_nan.
    encode, encode_long = (
        make_encoder(None, default, quote, None, ":", ",", False, False, False)
        for quote in (_encoder.encode_basestring, _quoted)
    )

    def fast(value: Any) -> bytes:
        if type(value) is dict and len(value) <= _LOOKED_AT:
            # As in `_has_long_text`; a call takes a tenth of the time of a small value.
            for member in value.values():
                if type(member) is str and len(member) > _LONG:
                    break
            else:
                return "".join(encode(value, 0)).encode()
            return "".join(encode_long(value, 0)).encode()
        encode_it = encode_long if _has_long_text(value) else encode
        return "".join(encode_it(value, 0)).encode()

    return fast


def _has_long_text(value: Any) -> bool:
    """Returns whether a value is a long text or has one, as far as that shows at a glance."""
    kind = type(value)
    if kind is dict:
        members: Any = value.values() if len(value) <= _LOOKED_AT else ()
    elif kind is list:
        members = value[:_LOOKED_AT]
    else:
        members = (value,)
    # A generator would take as long as all the rest, for a small value.
    for member in members:  # noqa: SIM110
        if type(member) is str and len(member) > _LONG:
            return True
    return False


def _quoted(text: str) -> str:
    """Returns a text as JSON has it, between quotes."""
    if len(text) > _LONG and type(text) is str and text.isascii():
        for character in _ESCAPED:
            if character in text:
                break
        else:
            return f'"{text}"'
    return _encoder.encode_basestring(text)


def make_dumps(default: Any) -> Any:
    """Returns an encoder with this function for values that are none of JSON's own types."""
    documented = json.JSONEncoder(default=default, **_SETTINGS).encode
    try:
        fast = _make_fast_dumps(default)
        sample = {"a": [1, 2.5, None, True, "ß\n"], "b": {}}
        if fast(sample) == documented(sample).encode():
            return fast
    except Exception:  # noqa: BLE001  (an interpreter whose core differs or is absent)
        pass
    return lambda value: documented(value).encode()


_dumps = make_dumps(as_sent)


def dumps(value: Any, place: str = "answer") -> Any:
    """Returns a value as the bytes of a JSON body; ``place`` is what errors call it.

    Raises:
        Unsendable: a value that JSON cannot hold; it names the place and the type.
    """
    try:
        return _dumps(value)
    except Exception:  # noqa: BLE001  (converting runs code of other packages)
        return _dumps_thoroughly(value, place)


_REMEDY = "; convert it in encode_response, or return a Response"


def _dumps_thoroughly(value: Any, place: str) -> Any:
    """Encodes what the fast encoder refuses: keys of any type, as FastAPI encodes them. It knows
    the place of what cannot be sent."""
    try:
        return _dumps(_plain(value, place))
    except RecursionError:
        what = "contains itself, or is nested too deeply"
        raise Unsendable(place, what, _REMEDY) from None


def _plain(value: Any, place: str) -> Any:
    """Returns a value in JSON's own types."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, str):
        return _checked_text(value, place)
    if isinstance(value, float):
        if value - value == 0:
            return value
        shown = "NaN" if value != value else str(float(value))
        raise Unsendable(place, f"is {shown}, which JSON does not have", _REMEDY)
    if isinstance(value, dict):
        return {
            _key(key, place): _plain(each, f"{place}[{_shown(key)}]") for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(each, f"{place}[{at}]") for at, each in enumerate(value)]
    try:
        converted = _converted(value)
    except TypeError as error:
        what = f"is of type {_name_of(type(value))}"
        own = str(error) == f"a {type(value).__name__}"
        raise Unsendable(place, what, _remedy(value), None if own else error) from None
    except Exception as error:
        what = f"is of type {_name_of(type(value))}, which cannot be converted"
        raise Unsendable(place, what, _REMEDY, error) from error
    if isinstance(converted, dict) and not hasattr(value, "keys"):
        # Of an object they are attributes.
        return {
            _key(name, place): _plain(each, f"{place}.{name}") for name, each in converted.items()
        }
    return _plain(converted, place)


def _remedy(value: Any) -> str:
    if hasattr(value, "__await__"):
        return "; the hook that returns it must await it, and be `async def`"
    if hasattr(value, "__aiter__"):
        return "; set stream=True to send what it yields"
    return _REMEDY


def _key(key: Any, place: str) -> Any:
    if isinstance(key, (str, int, float, type(None))):
        return _plain(key, f"a key of {place}")
    place = f"the key {_shown(key)} of {place}"
    converted = _plain(key, place)
    if isinstance(converted, (list, dict)):
        what = f"is of type {_name_of(type(key))}, and keys are texts in JSON"
        raise Unsendable(place, what, "; convert it in encode_response")
    return converted


def _shown(key: Any) -> str:
    # As JSON would show it, and not all of it where it is long.
    return f'"{key}"' if type(key) is str and len(key) <= 40 else reprlib.repr(key)


def _checked_text(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        what = f"has half of a surrogate pair (U+{half:04X}), which is no text"
        raise Unsendable(place, what, "; mend it in encode_response") from None
    return text


def _name_of(kind: Any) -> Any:
    is_plain = kind.__module__ in ("builtins", "__main__", "__mp_main__")
    return kind.__qualname__ if is_plain else f"{kind.__module__}.{kind.__qualname__}"
