"""The encoding of results and errors of hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from litplex._calls.errors import CallError
from litplex._launched import request_marks
from litplex._launched.tracebacks import print_of, summary_of
from litplex._worker.wire import frames
from litplex._worker.wire.json import MalformedBody, Unsendable, dumps

if TYPE_CHECKING:
    from litplex._http import Context
    from litplex._worker.wire.frames import Payload

#: The status, flags and payload of a response.
Answer = tuple[int, int, bytes]
#: The status, payload and headers of the end of a stream.
Ending = tuple[int, bytes, Sequence[tuple[str, str]]]

_PLAIN = frozenset((dict, list, str, int, float, bool, type(None)))
# Headers that are made from the body and its media type on the way out.
_MADE = ("content-length", "content-type")
# So that a frame has room for it and for those before it, which its credit bounds.
_MAX_ITEM_BYTES = frames.MAX_PAYLOAD_BYTES // 2
# The statuses of failed calls that are no errors of the program: load, time, and callers that left.
_EXPECTED = (499, 503, 504)
_INTERNAL = b'{"detail":"Internal server error"}'
# The name of the hook that returns the responses; a worker has one model.
_source = "a hook"


def name_source(source: Any) -> None:
    """Sets the name of the hook that returns the responses, for the log."""
    global _source
    _source = source


class Followed(bytes):
    """A payload, or the frame of it, and what is done after it is sent."""

    background = None


def followed(data: bytes, background: Any) -> bytes:
    """Returns data that is followed by a background task, if there is one."""
    if background is None:
        return data
    data = Followed(data)
    data.background = background
    return data


def response(id: int, status: int, flags: int, payload: Payload) -> bytes:
    """Returns the frame of an answer.

    Raises:
        ValueError: it is larger than a frame may be.
    """
    if len(payload) > frames.MAX_PAYLOAD_BYTES:
        raise ValueError(f"an answer of {len(payload)} bytes is too large to be sent")
    frame = frames.HEADER.pack(len(payload), frames.RESPONSE, flags, status, id) + payload
    return frame if type(payload) is not Followed else followed(frame, payload.background)


def response_or_error(id: int, answer: Any) -> bytes:
    """Returns the frame of an answer, or of the error that it cannot be sent."""
    try:
        return response(id, *answer)
    except ValueError as error:
        return response(id, *encode_error(error))


def end(id: int, ending: Ending = (0, b"", ()), context: Context | None = None) -> bytes:
    """Returns the frame that ends a stream with this status, payload and headers, and with what was
    measured of a request with this context."""
    status, payload, headers = ending
    meta = {"headers": headers} if headers else {}
    if context is not None and context._stages is not None:
        context._stages.end()
        meta["stages"] = context._stages.seconds
    if not meta:
        return frames.encode(frames.END, payload, status=status, id=id)
    payload = frames.with_meta(meta, payload)
    return frames.encode(frames.END, payload, flags=frames.META, status=status, id=id)


def ending_of(error: BaseException | None, said: set[str] | None = None) -> Ending:
    """Returns the status, payload and headers of what ended a stream: an exception, or None."""
    if error is None:
        return 0, b"", ()
    status, flags, payload = encode_error(error, said)
    headers = ()
    if flags & frames.META:
        meta, body = frames.split_meta(payload)
        headers, payload = meta["headers"], bytes(body)
    return (status if status >= 400 else 500), payload, headers


def plain_error(error: BaseException) -> tuple[int, bytes]:
    """Returns the status and JSON of an exception, for frames that have no place for headers."""
    return ending_of(error)[:2]


class Cancelled(Exception):
    """No caller waits for the response; it has the shape of an HTTPException."""

    status_code = 499
    detail = "cancelled: no caller waits for the response"


def encode_body(output: Any, bytes_are_text: bool = False) -> Any:
    """Returns the status, flags and payload of the response that an output makes; a coroutine that
    does, for a response that is put together by an asynchronous iterator, on an event loop."""
    if type(output) in _PLAIN:
        return 200, 0, dumps(output)
    if isinstance(output, (bytes, bytearray, memoryview)):
        if bytes_are_text:
            return 200, 0, dumps(bytes(output).decode())
        return _typed(200, "application/octet-stream", [], bytes(output))
    if hasattr(output, "status_code"):
        if hasattr(output, "body"):
            return _encode_response(output, bytes(output.body))
        if hasattr(output, "path"):
            return _encode_response(output, _read(output.path))
        if hasattr(output, "body_iterator"):
            from litplex._worker.wire import background_tasks

            return background_tasks.settled(_encode_streamed(output))
    return 200, 0, dumps(output)


def encode_value(output: Any) -> Any:
    """Returns what :func:`encode_body` does, for a caller that takes buffers within values."""
    if type(output) not in _PLAIN and (
        isinstance(output, (bytes, bytearray, memoryview)) or hasattr(output, "status_code")
    ):
        return encode_body(output)
    from litplex._worker.wire.values import pack

    content, pieces = pack(output, "answer")
    if content == "json":
        return 200, 0, pieces[0]
    return 200, frames.META, frames.with_meta({"content": content}, b"".join(pieces))


def _encode_response(output: Any, body: Payload) -> Answer:
    """Returns what an object like Starlette's responses makes, with what is done after it."""
    headers = [(name, str(value)) for name, value in output.headers.items()]
    types = [value for name, value in headers if name.lower() == "content-type"]
    headers = [(name, value) for name, value in headers if name.lower() not in _MADE]
    media_type = types[-1] if types else str(output.media_type or "")
    status, flags, payload = _typed(output.status_code, media_type, headers, body)
    return status, flags, followed(payload, getattr(output, "background", None))


def _read(path: str) -> Any:
    with open(path, "rb") as file:
        return file.read()


async def _encode_streamed(output: Any) -> Answer:
    """Collects a StreamingResponse: one that is sent as it comes is a model's with `stream`."""
    pieces, size = [], 0
    async for piece in output.body_iterator:
        pieces.append(piece.encode() if isinstance(piece, str) else bytes(piece))
        size += len(pieces[-1])
        if size > frames.MAX_PAYLOAD_BYTES:
            raise ValueError(
                "an answer of more than 1 GiB is too large to be sent; set stream=True"
            )
    return _encode_response(output, b"".join(pieces))


def encode_item(output: Any) -> tuple[int, bytes]:
    """Returns the kind and the bytes of one item of a stream.

    Raises:
        TypeError, ValueError: it cannot be sent.
    """
    own = type(output)
    # The exact type first: a stream of small items is as fast as this function.
    if own in _PLAIN and own is not str:
        kind, data = frames.JSON_ITEMS, dumps(output)
    elif isinstance(output, str):
        kind, data = frames.TEXT_ITEMS, output.encode()
    elif isinstance(output, (bytes, bytearray, memoryview)):
        kind, data = frames.BYTES_ITEMS, bytes(output)
    else:
        kind, data = frames.JSON_ITEMS, dumps(output)
    if len(data) > _MAX_ITEM_BYTES:
        raise ValueError(f"an item of {len(data)} bytes is too large to be sent")
    return kind, data


def encode_error(error: BaseException, said: set[str] | None = None) -> Answer:
    """Returns the status, flags and payload for an exception of a hook; it never raises.

    Errors that the client must not see are logged with their traceback, unless ``said`` has them
    already.
    """
    try:
        return _encode_error(error, set() if said is None else said)
    except BaseException as unsendable:  # noqa: BLE001  (a detail that JSON cannot hold, say)
        print_of(unsendable)
        return 500, 0, _INTERNAL


def _encode_error(error: BaseException, said: set[str]) -> Answer:
    if isinstance(error, MalformedBody):
        return 400, 0, dumps({"detail": str(error)})
    if isinstance(error, CallError):
        return _call_error(error, said)
    if isinstance(getattr(error, "status_code", None), int) and hasattr(error, "detail"):
        return _http_exception(error)
    summary = summary_of(error)
    if summary not in said:
        said.add(summary)
        _say(error)
    detail = getattr(error, "client_detail", None)
    if detail is None:
        return 500, 0, _INTERNAL
    # Where only one input of a request is to blame, the server knows its place among all.
    input = getattr(error, "input", None)
    return 500, 0, dumps({"detail": detail, **({} if input is None else {"input": input})})


def _call_error(error: CallError, said: set[str]) -> Answer:
    summary = summary_of(error)
    if error.own_status not in _EXPECTED and summary not in said:
        said.add(summary)
        print_of(error)
    payload = dumps({"detail": error.own_detail, "calls": error.calls})
    after = error.retry_after
    headers = [("retry-after", str(after))] if after and error.own_status == 503 else []
    return _typed(error.own_status, "application/json", headers, payload)


def _say(error: BaseException) -> None:
    if not isinstance(error, Unsendable):
        print_of(error)
        return
    # It comes from the encoder, whose frames say nothing of the hook.
    request_marks.report(f"what {_source} gave {error}")
    if error.__cause__ is not None:
        print_of(error.__cause__)


def _http_exception(error: Any) -> Answer:
    payload = dumps({"detail": error.detail})
    headers = getattr(error, "headers", None)
    if not headers and 100 <= error.status_code <= 999:
        return error.status_code, 0, payload
    headers = headers or {}
    pairs = [(name, str(value)) for name, value in headers.items()]
    pairs = [pair for pair in pairs if pair[0].lower() not in _MADE]
    return _typed(error.status_code, "application/json", pairs, payload)


def _typed(status: int, media_type: str, headers: list[tuple[str, str]], body: Payload) -> Answer:
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise ValueError(f"{status!r} is not an HTTP status")
    meta = {"media_type": media_type, "headers": headers}
    return status, frames.META, frames.with_meta(meta, body)
