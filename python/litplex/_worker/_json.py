"""JSON as fast as the standard library can.

Most of the time that ``json.loads`` and ``json.dumps`` take on a small body goes into their Python
wrappers. Here the C core behind them is called directly, and the documented calls are the
fallback: for interpreters without that core, and for whatever the core refuses.
"""

import json
import re
from collections import deque
from json import encoder as _encoder
from types import GeneratorType
from typing import Any

_scan = getattr(json.JSONDecoder(), "scan_once")  # noqa: B009  (not in its type)
_SETTINGS: dict[str, Any] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
_SENT_AS_TEXT = ("uuid", "ipaddress", "pydantic.networks", "pydantic.types")


class MalformedBody(ValueError):
    """The body of a request is not JSON; the message says where."""


def loads(payload):
    """Returns the value of a JSON body.

    Raises:
        MalformedBody: with the position of the first mistake.
    """
    try:
        text = str(payload, "utf-8")
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, ValueError, RecursionError):
        pass
    # White space around the value, another encoding, or a mistake that json.loads describes.
    text, encoding = _text_of(bytes(payload))
    try:
        return json.loads(text)
    except RecursionError:
        raise MalformedBody("malformed JSON body: nested too deeply") from None
    except ValueError as error:
        read_as = "" if encoding == "UTF-8" else f"not UTF-8, and read as {encoding}: "
        raise MalformedBody(f"malformed JSON body: {read_as}{error}") from error


def _text_of(body):
    """Returns the text of a body in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark, as
    ``json.loads`` finds out, and the name of its encoding."""
    encoding = json.detect_encoding(body)
    name = encoding.replace("-sig", "").upper()
    try:
        return body.decode(encoding), name
    except UnicodeDecodeError as error:
        raise MalformedBody(f"malformed JSON body: not {name} at byte {error.start}") from None


def _default(value):
    """What people return from hooks besides JSON's own types, as FastAPI sends it."""
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
        return int(value) if value.as_tuple().exponent == 0 else float(value)
    if hasattr(value, "__fspath__") or kind.__module__ in _SENT_AS_TEXT:
        return str(value)
    if isinstance(value, re.Pattern):
        return value.pattern
    if hasattr(value, "_value_"):
        return value._value_
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return dict(value)
    if getattr(value, "__dict__", None) and not callable(value):
        return vars(value)
    raise TypeError(
        f"a {kind.__name__} cannot be sent as JSON; convert it in encode_response, or return "
        f"a Response"
    )


def _make_fast_dumps():
    make_encoder: Any = vars(_encoder)["c_make_encoder"]
    # The positions are those of CPython 3.9 to 3.14: markers, default, string encoder, indent,
    # two separators, sort_keys, skipkeys, allow_nan.
    encode = make_encoder(
        None, _default, _encoder.encode_basestring, None, ":", ",", False, False, False
    )
    return lambda value: "".join(encode(value, 0)).encode()


def _make_dumps():
    documented = json.JSONEncoder(default=_default, **_SETTINGS).encode
    try:
        fast = _make_fast_dumps()
        sample = {"a": [1, 2.5, None, True, "ß\n"], "b": {}}
        if fast(sample) == documented(sample).encode():
            return fast
    except Exception:  # noqa: BLE001  (an interpreter whose core differs or is absent)
        pass
    return lambda value: documented(value).encode()


_dumps = _make_dumps()


def dumps(value):
    """Returns a value as the bytes of a JSON body.

    Raises:
        TypeError: a value that JSON cannot hold.
        ValueError: NaN or an infinity, which JSON cannot hold either.
    """
    return _dumps(value)
