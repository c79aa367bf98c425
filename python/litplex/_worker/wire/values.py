"""Values with buffers: bytes and numpy arrays travel as they are, beside the JSON around them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Union

from litplex._worker.wire import frames
from litplex._worker.wire.json import Unsendable, as_sent, dumps, loads, make_dumps

if TYPE_CHECKING:
    from litplex._worker.wire.frames import Payload

#: How the body of a request or response is to be read, as its metadata says it.
Content = Any
Path = tuple[Union[str, int], ...]

RAW = "application/octet-stream"
# Each buffer begins at a multiple of this in the body.
_ALIGNMENT = 16
# Kinds of numpy's types whose items are plain bytes, whatever the machine: numbers and booleans.
_KINDS = "biufc"


class _HasBuffer(Exception):
    """The encoder met a buffer."""


class NoNumpy(ImportError):
    """A value has an array, and numpy cannot be imported."""


def as_text(_: Any, piece: Payload, prefix: str) -> Any:
    """Returns the text in the client's request: the base64 of bytes, with what is before it."""
    from binascii import b2a_base64

    return prefix + b2a_base64(piece, newline=False).decode()


#: Returns what hooks get for bytes that the server has decoded from base64, of their path, the
#: bytes and the text before the base64. A model with such fields sets another function.
take_decoded: Callable[[Any, Payload, str], Any] = as_text


def pack(value: Any, place: str) -> tuple[Content, list[Any]]:
    """Returns the content of a value, and the pieces of its body.

    Args:
        value: A value.
        place: What errors call it.

    Raises:
        Unsendable: it holds what neither JSON nor a buffer can; the error has the place.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"raw": RAW}, [_flat(value)]
    try:
        return "json", [_dumps_or_find(value)]
    except _HasBuffer:
        return _pack(value, place)
    except Exception:  # noqa: BLE001  (the thorough encoder knows the place)
        return "json", [dumps(value, place)]


def _find(value: Any) -> Any:
    if _is_buffer(value):
        raise _HasBuffer
    return as_sent(value)


_dumps_or_find = make_dumps(_find)


def _is_buffer(value: Any) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview)) or _is_array(value)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, getattr(numpy, "ndarray", ())):
        return False
    # A masked array would lose its mask.
    return value.dtype.kind in _KINDS and not hasattr(value, "mask")


def _pack(value: Any, place: str) -> tuple[Content, list[Any]]:
    found: list[tuple[Path, Any]] = []
    try:
        rest = _without_buffers(value, (), found)
    except RecursionError:
        raise Unsendable(place, "contains itself, or is nested too deeply") from None
    text = dumps(rest, place)
    parts: list[dict[str, Any]] = [{"offset": 0, "length": len(text)}]
    pieces, end = [text], len(text)
    for path, buffer in found:
        padding = -end % _ALIGNMENT
        part: dict[str, Any] = {"offset": end + padding, "path": path}
        if _is_array(buffer):
            array = _little_endian(buffer)
            part["dtype"], part["shape"] = array.dtype.str, array.shape
            buffer = _bytes_of(array)
        else:
            buffer = _flat(buffer)
        part["length"] = len(buffer)
        parts.append(part)
        pieces += [b" " * padding, buffer]
        end += padding + len(buffer)
    return {"packed": parts}, pieces


def _without_buffers(value: Any, path: Path, found: list[tuple[Path, Any]]) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_buffers(each, (*path, _key_text(key)), found)
            for key, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_buffers(each, (*path, at), found) for at, each in enumerate(value)]
    if _is_buffer(value):
        found.append((path, value))
        return None
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return _without_buffers(as_sent(value), path, found)
    return value


def _key_text(key: Any) -> Any:
    """Returns a key of a dict as the reader of its JSON finds it."""
    return key if type(key) is str else next(iter(loads(dumps({key: 0}))))


def _flat(buffer: Any) -> Any:
    """Returns the bytes of a buffer, without a copy where they follow each other."""
    if isinstance(buffer, bytes):
        return buffer
    view = memoryview(buffer)
    if not view.c_contiguous or view.ndim == 0 or 0 in (view.shape or ()):
        return view.tobytes()
    return view.cast("B")


def _little_endian(array: Any) -> Any:
    kind = array.dtype.newbyteorder("<")
    return array if array.dtype == kind else array.astype(kind)


def _bytes_of(array: Any) -> Any:
    if not array.size or not array.flags.c_contiguous:
        return array.tobytes()
    return array.reshape(-1).view("u1").data


def unpack(parts: Sequence[dict[str, Any]], body: Payload) -> Any:
    """Returns a value of its parts. Arrays cannot be written to, and large ones are views of the
    body.

    Raises:
        MalformedBody: the first part is no JSON.
        NoNumpy: it has an array, and numpy cannot be imported.
        KeyError, IndexError, TypeError, ValueError: the parts are wrong.
    """
    value = loads(_piece(parts[0], body))
    for part in parts[1:]:
        piece, path = _piece(part, body), part["path"]
        item = _item(piece, part)
        if not path:
            return item
        holder = value
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = item
    return value


def _item(piece: Payload, part: dict[str, Any]) -> Any:
    if "dtype" in part:
        return _array(piece, part)
    if part.get("base64"):
        return take_decoded(part["path"], piece, part.get("prefix", ""))
    return bytes(piece)


def _piece(part: dict[str, Any], body: Payload) -> Payload:
    start, length = part["offset"], part["length"]
    if not (isinstance(start, int) and isinstance(length, int) and start >= 0):
        raise ValueError(f"a part at {start!r} of {length!r} bytes")
    piece = body[start : start + length]
    if len(piece) != length:
        raise ValueError("a part runs past its body")
    return piece


def _array(piece: Payload, part: dict[str, Any]) -> Any:
    try:
        import numpy
    except ImportError as error:
        raise NoNumpy(
            f"the value has a numpy array, and numpy cannot be imported here ({error}); install "
            "it for this endpoint (`requirements`), or send lists"
        ) from None
    kind = numpy.dtype(part["dtype"])
    if kind.kind not in _KINDS:
        raise ValueError(f"an array of {kind}")
    if not len(piece):
        empty = numpy.empty(part["shape"], kind)
        empty.flags.writeable = False
        return empty
    held = frames.kept(piece)
    if isinstance(held, memoryview):
        held = held.toreadonly()
    array = numpy.frombuffer(held, kind).reshape(part["shape"])
    if not array.flags.aligned:
        array = array.copy()
        array.flags.writeable = False
    return array
