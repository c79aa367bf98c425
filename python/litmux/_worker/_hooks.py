"""Calls the user's hooks: which get a context, and what their errors and results become."""

import inspect
import sys
import traceback

from litmux._api import LitAPI
from litmux._http import Context, Form, UploadFile
from litmux._worker import _frames as frames
from litmux._worker._json import MalformedBody, dumps, loads

_PLAIN = frozenset((dict, list, str, int, float, bool, type(None)))
# Headers that are made from the body and its media type on the way out.
_MADE = ("content-length", "content-type")
_INTERNAL = b'{"detail":"Internal server error"}'


def check_hooks(api):
    """Raises a ValueError where the settings of a model do not fit its hooks."""
    if not isinstance(api, LitAPI):
        raise ValueError(f"it is a {type(api).__name__}, not a litmux.LitAPI")
    if api.stream and api.max_batch_size > 1:
        raise ValueError("streams cannot be batched; set max_batch_size=1 or stream=False")
    is_generator = inspect.isgeneratorfunction(inspect.unwrap(api.predict))
    if is_generator and not api.stream:
        raise ValueError("`predict` is a generator; set stream=True, or return a value")
    if inspect.iscoroutinefunction(api.predict) or inspect.isasyncgenfunction(api.predict):
        raise ValueError("`async def predict` is not supported; use a plain function")


def wants_context(hook):
    """Tells whether a hook names a ``context`` parameter."""
    try:
        return "context" in inspect.signature(hook).parameters
    except (TypeError, ValueError):
        return False


class Hooks:
    """The hooks of one model, ready to be called with payloads of frames."""

    def __init__(self, api):
        self.max_batch_size = api.max_batch_size
        self.stream = api.stream
        self._batch_timeout = api.batch_timeout
        self._api = api
        hooks = (api.decode_request, api.predict, api.encode_response)
        self.context = any(wants_context(hook) for hook in hooks)
        self._decode, self._predict, self._encode = map(_taking_context, hooks)
        self._encodes_stream = _encodes_whole_stream(api)

    def traits(self):
        """Returns the ``Ready`` message."""
        return {
            "max_batch_size": self.max_batch_size,
            "batch_timeout": self._batch_timeout,
            "stream": bool(self.stream),
            "context": self.context,
        }

    def decode(self, flags, payload):
        """Returns the input and the context of one request."""
        if not (flags & frames.META or self.context):
            # What most requests are; every call on this path shows in the throughput.
            return self._api.decode_request(loads(payload)), None
        if flags & frames.META:
            meta, body = frames.split_meta(payload)
            request, context = _read_content(meta["content"], body), Context(meta.get("context"))
        else:
            request, context = loads(payload), Context()
        return self._decode(request, context), context

    def answer(self, flags, payload):
        """Computes one request; returns the status, flags and payload of its response."""
        x, context = self.decode(flags, payload)
        return encode_body(self._encode(self._predict(x, context), context))

    def answer_batch(self, items):
        """Computes inputs with their contexts; returns a response or exception for each."""
        inputs = [x for x, _ in items]
        contexts = [context for _, context in items]
        outputs = self._api.unbatch(self._predict(self._api.batch(inputs), contexts))
        outputs = outputs if isinstance(outputs, list) else list(outputs)
        if len(outputs) != len(items):
            raise ValueError(
                f"predict and unbatch must give one output for each input: "
                f"expected {len(items)}, got {len(outputs)}"
            )
        return list(map(self._encode_item, outputs, contexts))

    def _encode_item(self, output, context):
        try:
            if isinstance(output, Exception):
                raise output
            return encode_body(self._encode(output, context))
        except BaseException as error:  # noqa: BLE001  (one item fails alone)
            return encode_error(error)

    def outputs(self, flags, payload):
        """Returns the generator of one streamed answer, and what to close when it is cut short."""
        x, context = self.decode(flags, payload)
        outputs = iter(self._predict(x, context))
        if self._encodes_stream:
            return iter(self._encode(outputs, context)), outputs
        return (self._encode(output, context) for output in outputs), outputs


def _taking_context(hook):
    """Returns the hook as a function of a value and a context, which it gets if it names one."""
    if wants_context(hook):
        return lambda value, context: hook(value, context=context)
    return lambda value, _: hook(value)


def _encodes_whole_stream(api):
    encode = api.encode_response
    is_default = getattr(encode, "__func__", None) is LitAPI.encode_response
    return is_default or inspect.isgeneratorfunction(inspect.unwrap(encode))


def _read_content(content, body):
    if content == "json":
        return loads(body)
    if "raw" in content:
        return bytes(body)
    return Form(list(_read_parts(content["form"], body)))


def _read_parts(parts, body):
    start = 0
    for part in parts:
        piece = bytes(body[start : start + part["length"]])
        start += part["length"]
        if part.get("filename") is not None:
            yield part["name"], UploadFile(piece, part["filename"], part.get("content_type"))
        else:
            yield part["name"], piece.decode("utf-8", "replace")


def encode_body(output):
    """Returns the status, flags and payload of the response that an output makes."""
    if type(output) in _PLAIN:
        return 200, 0, dumps(output)
    if isinstance(output, (bytes, bytearray, memoryview)):
        return _typed(200, "application/octet-stream", [], bytes(output))
    if hasattr(output, "status_code") and hasattr(output, "body"):
        headers = [(name, str(value)) for name, value in output.headers.items()]
        types = [value for name, value in headers if name.lower() == "content-type"]
        headers = [(name, value) for name, value in headers if name.lower() not in _MADE]
        media_type = types[-1] if types else output.media_type or ""
        return _typed(output.status_code, media_type, headers, bytes(output.body))
    return 200, 0, dumps(output)


def encode_item(output):
    """Returns the kind and the bytes of one item of a stream."""
    if isinstance(output, str):
        return frames.TEXT_ITEMS, output.encode()
    if isinstance(output, (bytes, bytearray, memoryview)):
        return frames.BYTES_ITEMS, bytes(output)
    return frames.JSON_ITEMS, dumps(output)


def encode_error(error):
    """Returns the status, flags and payload that an exception of a hook makes; it never raises.

    What the client may not know goes to the log.
    """
    try:
        return _encode_error(error)
    except Exception as unsendable:  # noqa: BLE001  (a detail that JSON cannot hold, say)
        traceback.print_exception(type(unsendable), unsendable, unsendable.__traceback__)
        return 500, 0, _INTERNAL


def _encode_error(error):
    if isinstance(error, MalformedBody):
        return 400, 0, dumps({"detail": str(error)})
    if isinstance(getattr(error, "status_code", None), int) and hasattr(error, "detail"):
        return _http_exception(error)
    traceback.print_exception(type(error), error, _user_part(error), file=sys.stderr)
    return 500, 0, _INTERNAL


def _http_exception(error):
    payload = dumps({"detail": error.detail})
    headers = getattr(error, "headers", None)
    if not headers and 100 <= error.status_code <= 999:
        return error.status_code, 0, payload
    headers = headers or {}
    pairs = [(name, str(value)) for name, value in headers.items()]
    pairs = [pair for pair in pairs if pair[0].lower() not in _MADE]
    return _typed(error.status_code, "application/json", pairs, payload)


def _typed(status, media_type, headers, body):
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise ValueError(f"{status!r} is not an HTTP status")
    meta = {"media_type": media_type, "headers": headers}
    return status, frames.META, frames.with_meta(meta, body)


def _user_part(error):
    """Returns the traceback from the first frame outside of this package."""
    package = __file__.rpartition("_worker")[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(package):
        trace = trace.tb_next
    return trace or error.__traceback__
