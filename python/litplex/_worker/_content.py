"""What a request holds, as hooks get it."""

from litplex._http import Context, Form, UploadFile
from litplex._worker import _frames as frames
from litplex._worker._json import MalformedBody, loads
from litplex._worker._stages import Stages, now


def read_request(flags, payload, request_id=None):
    """Returns the value and the context of a request.

    Raises:
        MalformedBody: the client's mistake.
        FrameError: the server's.
    """
    if not flags & frames.META:
        context = Context()
        context.request_id = request_id
        return loads(payload), context
    began = now()
    meta, body = frames.split_meta(payload)
    try:
        content, context = meta["content"], Context(meta.get("context"))
        context.request_id = request_id
        if meta.get("stages"):
            context._stages = Stages(began)
        return _read_content(content, body), context
    except MalformedBody:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise frames.FrameError(f"the metadata of a request is wrong: {error!r}") from None


def _read_content(content, body):
    if content == "json":
        return loads(body)
    if "raw" in content:
        return bytes(body)
    return Form(list(_read_parts(content["form"], body)))


def _text(piece):
    """Decodes a field as UTF-8, or as Latin-1 where it is none: no byte is lost."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return piece.decode("latin-1")


def _read_parts(parts, body):
    start = 0
    for part in parts:
        piece = bytes(body[start : start + part["length"]])
        start += part["length"]
        if part.get("filename") is not None:
            yield part["name"], UploadFile(piece, part["filename"], part.get("content_type"))
        else:
            yield part["name"], _text(piece)
