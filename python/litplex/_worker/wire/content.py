"""The value of a request, as hooks get it, and its context."""

from __future__ import annotations

import codecs
import contextlib
import re
from typing import TYPE_CHECKING, Any

from litplex._http import Context, Form, HTTPException, UploadFile
from litplex._worker.wire import frames
from litplex._worker.wire.json import MalformedBody, loads
from litplex._worker.wire.stages import Stages, now

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litplex._worker.wire.frames import Payload

_search_charset = re.compile(r';\s*charset\s*=\s*"?([\w.:-]+)', re.IGNORECASE | re.ASCII).search
# How the names of those codecs of Python begin that are charsets of texts: others take long, or are
# none.
_CHARSETS = (
    *("utf-8", "utf-16", "utf-32", "ascii", "iso8859", "cp125", "koi8"),
    *("shift_jis", "euc_", "gb", "big5", "iso2022"),
)


def read_request(
    flags: int, payload: Payload, request_id: str | None = None
) -> tuple[Any, Context]:
    """Returns the value and the context of a request.

    Raises:
        MalformedBody: the client's error.
        FrameError: the server's.
    """
    if not flags & frames.META:
        context = Context()
        context.request_id = request_id
        context._name = request_id or ""
        context._takes_values = bool(flags & frames.VALUES)
        return loads(payload), context
    began = now()
    meta, body = frames.split_meta(payload)
    try:
        content, context = meta["content"], Context(meta.get("context"))
        context.request_id = request_id
        context._name = request_id or meta.get("name", "")
        context._takes_values = bool(flags & frames.VALUES)
        if meta.get("stages"):
            context._stages = Stages(began)
        return _read_content(content, body), context
    except (MalformedBody, HTTPException):
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise frames.FrameError(f"the metadata of a request is wrong: {error!r}") from None


def _read_content(content: Any, body: Payload) -> Any:
    if content == "json":
        return loads(body)
    if "raw" in content:
        return bytes(body)
    if "packed" in content:
        return _unpacked(content["packed"], body)
    return Form(list(_read_parts(content["form"], body)))


def _unpacked(parts: Any, body: Payload) -> Any:
    from litplex._worker.wire.values import NoNumpy, unpack

    try:
        return unpack(parts, body)
    except NoNumpy as error:
        raise HTTPException(415, str(error)) from None


def _text(piece: bytes, content_type: str | None) -> str:
    """Decodes a field in the charset of its part, or else as UTF-8, or as Latin-1 where it is not
    UTF-8: no byte is lost."""
    charset = _charset_of(content_type) if content_type else None
    for encoding in (charset, "utf-8"):
        if encoding is not None:
            with contextlib.suppress(UnicodeError):
                return piece.decode(encoding)
    return piece.decode("latin-1")


def _charset_of(content_type: str) -> str | None:
    found = _search_charset(content_type)
    try:
        known = codecs.lookup(found.group(1)).name if found else ""
    except LookupError:
        return None
    return known if known.startswith(_CHARSETS) else None


def _read_parts(parts: list[dict[str, Any]], body: Payload) -> Iterator[Any]:
    start = 0
    for part in parts:
        piece = bytes(body[start : start + part["length"]])
        start += part["length"]
        if part.get("filename") is not None:
            yield part["name"], UploadFile(piece, part["filename"], part.get("content_type"))
        else:
            yield part["name"], _text(piece, part.get("content_type"))
