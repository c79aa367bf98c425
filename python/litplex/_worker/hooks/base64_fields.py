"""Finds the fields of a request that the server decodes from base64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional, Union

from litplex._base64 import decoded
from litplex._worker.wire import values

#: The keys that lead to a field; None for each item of a list, or each value of an object.
Path = tuple[Optional[str], ...]
#: A path, and the type of the bytes that the validator of the field is given.
Field = tuple[Path, type[bytes]]

#: The type of a field as the worker gets it.
Kind = Union[type[bytes], type["Media"]]

# Schemas whose validation begins with that of the schema inside, on the same value.
_TRANSPARENT = {"model", "nullable", "default", "function-after", "dataclass"}
_ITEMS = {"list": "items_schema", "set": "items_schema", "dict": "values_schema"}
_FIELDS = {"model-fields", "typed-dict"}
# The schema of bytes without limits: those of pydantic's own type are of the text.
_PLAIN_BYTES = {"type": "bytes"}


def base64_fields(schema: Any) -> dict[Path, type[bytes]]:
    """Returns the paths of the fields that are ``ls.Base64``, or ``Base64Bytes`` of pydantic, and
    the type of the bytes that their validators are given.

    Fields behind validators that see the value before it is decoded, and those of unions, are left
    out: only the worker can tell what they are.

    Args:
        schema: The core schema of the request, as pydantic has it.
    """
    return dict(_found(schema, {}, ()))


def _found(schema: Any, definitions: dict[str, Any], within: tuple[str, ...]) -> Iterator[Field]:
    kind = schema["type"]
    if kind == "definitions":
        known = {each["ref"]: each for each in schema["definitions"]}
        yield from _found(schema["schema"], {**definitions, **known}, within)
    elif kind == "definition-ref":
        ref = schema["schema_ref"]
        # The fields of a model within itself have no last place.
        if ref in definitions and ref not in within:
            yield from _found(definitions[ref], definitions, (*within, ref))
    elif _kind_of(schema) is not None:
        yield (), _kind_of(schema)
    elif kind in _FIELDS:
        for name, field in schema["fields"].items():
            yield from _of_field(name, field, definitions, within)
    elif kind == "dataclass-args":
        for field in schema["fields"]:
            yield from _of_field(field["name"], field, definitions, within)
    elif kind in _ITEMS and _ITEMS[kind] in schema:
        for path, given in _found(schema[_ITEMS[kind]], definitions, within):
            yield (None, *path), given
    elif kind in _TRANSPARENT and not schema.get("custom_init"):
        yield from _found(schema["schema"], definitions, within)


def _of_field(name: str, field: Any, definitions: dict[str, Any], within: Any) -> Iterator[Field]:
    alias = field.get("validation_alias", name)
    # A list of keys is a place elsewhere in the value.
    if isinstance(alias, str):
        for path, given in _found(field["schema"], definitions, within):
            yield (alias, *path), given


def _kind_of(schema: Any) -> Any:
    """Returns the type of the bytes that the validator of a field is given; None where the field is
    not base64."""
    function = schema.get("function")
    function = function.get("function") if isinstance(function, dict) else None
    if schema["type"] == "function-before":
        return bytes if function is decoded else None
    if schema["type"] == "function-after" and schema["schema"] == _PLAIN_BYTES:
        return Decoded if _is_pydantic_decoder(function) else None
    return None


def _is_pydantic_decoder(function: Any) -> bool:
    from pydantic.types import Base64Encoder, EncodedBytes

    holder = getattr(function, "__self__", None)
    return type(holder) is EncodedBytes and holder.encoder is Base64Encoder


class Media(NamedTuple):
    """The bytes of an image or a recording in a chat, and the text before their base64: of a
    ``data:`` URL up to its comma."""

    prefix: str
    data: bytes


class Decoded(bytes):
    """Bytes that the server has decoded, where pydantic's own type would decode them again."""


def accept(fields: dict[Path, Kind]) -> None:
    """Lets requests have these fields as bytes that the server has decoded."""
    if Decoded in fields.values():
        _let_decoded_pass()
    values.take_decoded = taker(fields)


def taker(fields: dict[Path, Kind]) -> Callable[[Any, Any, str], Any]:
    """Returns a function of the path and the bytes of a buffer that the server has decoded, and of
    the text before the base64, which returns the value in its place.

    Where the model does not declare the field, it is the text again: the request was decoded for
    another version of the model. So is a ``data:`` URL, which is no base64.
    """

    def take(place: Any, piece: Any, prefix: str) -> Any:
        for path, kind in fields.items():
            if not _is_at(path, place):
                continue
            if issubclass(kind, Media):
                return Media(prefix, bytes(piece))
            if not prefix:
                return kind(piece)
        return values.as_text(place, piece, prefix)

    return take


def _is_at(path: Path, place: Any) -> bool:
    return len(path) == len(place) and all(
        step is None or step == key for step, key in zip(path, place)
    )


def _let_decoded_pass() -> None:
    """Lets pydantic's decoder return bytes as they are that the server has decoded."""
    from pydantic.types import Base64Encoder

    decode = Base64Encoder.decode

    def decode_once(data: bytes) -> bytes:
        return bytes(data) if type(data) is Decoded else decode(data)

    Base64Encoder.decode = staticmethod(decode_once)
