"""Requests and responses as the annotations of hooks ask for them, read as FastAPI reads them.

pydantic is imported where an annotation needs it, and by nothing else: most workers have none.
"""

from __future__ import annotations

import functools
import inspect
import json
import reprlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Union

from litplex._api import is_async
from litplex._http import Context, Form, HTTPException, UploadFile
from litplex._model import annotations as hints
from litplex._worker.wire.json import MalformedBody, dumps

if TYPE_CHECKING:
    from litplex._worker.hooks.base64_fields import Path
    from litplex._worker.wire.frames import Payload

#: A function of the flags and payload of a request, for its value and context.
Reader = Callable[[int, Union[bytes, memoryview]], tuple[Any, Optional[Context]]]
#: The place of a value in a request, as pydantic reports it.
Loc = tuple[Union[str, int], ...]
Validate = Callable[[Any, Loc], Any]

_MISSING = object()


def request_reader(api: Any, read: Any) -> Any:
    """Returns a function that reads requests as ``decode_request`` is annotated; None where its
    annotation asks for nothing.

    Args:
        api: The model.
        read: Returns the value and the context of a request, of its flags and payload.

    Raises:
        ValueError: the annotation is invalid; the message says what to do.
    """
    if api.spec is not None:
        return None
    name, annotation = hints.request_annotation(api.decode_request)
    what = f"`{name}` of `decode_request`"
    kind, marks = hints.split(annotation)
    unsupported = marks - {"Body", "File", "Form"}
    if unsupported:
        raise _error(what, annotation, f"litplex does not know `{min(unsupported)}`")
    is_form = hints.is_file(kind) or bool(marks & {"File", "Form"})
    if not is_form and hints.is_unchecked(kind):
        return None
    if hints.is_file(kind):
        validate: Validate = _validate_files if hints.is_list(kind) else _validate_file
    else:
        adapter = _adapter(what, annotation)
        validate = _validator(adapter)
        if not is_form:
            from litplex._worker.hooks.base64_fields import base64_fields

            return _body_reader(read, validate, base64_fields(adapter.core_schema))
    if hints.is_model(kind):
        return _form_reader(read, functools.partial(_fields_of, kind), validate, ("body",))
    return _form_reader(read, functools.partial(_field, name, kind), validate, ("body", name))


def _body_reader(read: Reader, validate: Validate, base64: dict[Path, type[bytes]]) -> Any:
    loc = ("body",)

    def read_body(flags: int, payload: Payload) -> Any:
        try:
            value, context = read(flags, payload)
        except MalformedBody as error:
            raise _malformed(error, loc) from None
        return validate(_as_sent(value) if isinstance(value, Form) else value, loc), context

    read_body.base64_fields = base64  # type: ignore[attr-defined]
    return read_body


def _as_sent(form: Form) -> Any:
    """Returns a form sent in place of JSON, without its files, as the error shows it."""
    from urllib.parse import urlencode

    fields = {name: getattr(part, "filename", part) for name, part in form.items()}
    return urlencode(fields).encode()


def _form_reader(read: Reader, take: Callable[[Form], Any], validate: Validate, loc: Loc) -> Any:
    def read_form(flags: int, payload: Payload) -> Any:
        try:
            value, context = read(flags, payload)
        except MalformedBody:
            raise _missing(loc) from None
        value = take(value if isinstance(value, Form) else Form([]))
        if value is _MISSING:
            raise _missing(loc)
        return validate(value, loc), context

    return read_form


def _field(name: str, kind: Any, form: Form) -> Any:
    values = form.getlist(name)
    if hints.is_list(kind):
        return [value for value in values if not _is_blank(value)] or _MISSING
    if not values or _is_blank(values[-1]):
        return _MISSING
    last = values[-1]
    return last.read() if kind is bytes and isinstance(last, UploadFile) else last


def _fields_of(model: Any, form: Form) -> Any:
    kinds = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    taken = {name: _field(name, kinds.get(name), form) for name in form}
    return {name: value for name, value in taken.items() if value is not _MISSING}


def _is_blank(value: Any) -> bool:
    """Returns whether a value is that of a field which a user left empty."""
    return value == "" or (isinstance(value, UploadFile) and not value.filename and not value.size)


def _validate_files(values: Any, loc: Loc) -> Any:
    return [_validate_file(value, (*loc, index)) for index, value in enumerate(values)]


def _validate_file(value: Any, loc: Loc) -> Any:
    if isinstance(value, UploadFile):
        return value
    message = f"Value error, Expected UploadFile, received: {type(value)}"
    raise _invalid("value_error", loc, message, value, {"error": {}})


def _validator(adapter: Any) -> Any:
    """Returns a function of a value and its place, which gives what the annotation asks for."""
    check = adapter.validate_python
    from pydantic import ValidationError

    def validate(value: Any, loc: Loc) -> Any:
        try:
            return check(value, from_attributes=True)
        except ValidationError as error:
            details = error.errors(include_url=False)
        raise HTTPException(422, [_sendable(detail, loc) for detail in details])

    return validate


def _adapter(what: str, annotation: Any) -> Any:
    try:
        from pydantic import TypeAdapter
    except ImportError:
        reason = "only pydantic 2 can check it, and that is not installed for this worker"
        remedy = '`pip install "litplex[typed]"` in its environment, or '
        raise _error(what, annotation, reason, remedy) from None
    try:
        return TypeAdapter(annotation)
    except Exception as error:  # noqa: BLE001  (pydantic has many, and types bring their own)
        reason = str(error).partition("\n")[0]
        raise _error(what, annotation, f"pydantic cannot check it: {reason}") from None


def _error(what: str, annotation: Any, reason: str, remedy: str = "") -> Any:
    shown = inspect.formatannotation(annotation)
    return ValueError(f"{what} is annotated `{shown}`, and {reason}; {remedy}remove the annotation")


def _malformed(error: BaseException, loc: Loc) -> Any:
    cause = error.__cause__
    if not isinstance(cause, json.JSONDecodeError):
        return error
    if not cause.doc:
        return _missing(loc)
    place = (*loc, cause.pos)
    return _invalid("json_invalid", place, "JSON decode error", {}, {"error": cause.msg})


def _missing(loc: Loc) -> Any:
    return _invalid("missing", loc, "Field required", None)


def _invalid(
    type: str, loc: Loc, message: str, value: Any, context: dict[str, Any] | None = None
) -> Any:
    detail = {"type": type, "loc": loc, "msg": message, "input": value}
    return HTTPException(422, [detail if context is None else {**detail, "ctx": context}])


def _sendable(detail: dict[str, Any], loc: Loc) -> Any:
    detail["loc"] = (*loc, *detail["loc"])
    if isinstance(detail.get("ctx", {}).get("error"), Exception):
        detail["ctx"]["error"] = {}
    try:
        dumps(detail)
    except (TypeError, ValueError):
        # NaN, a file, an image where JSON was to be …
        detail["input"] = reprlib.repr(detail["input"])
    return detail


def response_encoder(api: Any) -> Any:
    """Returns ``encode_response``. If its return annotation has a pydantic model, responses are
    validated, lose fields that the model does not have, and get its aliases.

    Raises:
        ValueError: the annotation is invalid.
    """
    encode = api.encode_response
    annotation = hints.return_annotation(encode)
    if api.stream or api.spec is not None or not hints.has_model(annotation):
        return encode
    adapter = _adapter("what `encode_response` returns", annotation)

    def filtered(output: Any) -> Any:
        if hasattr(output, "status_code") and hasattr(output, "body"):
            return output
        value = adapter.validate_python(output, from_attributes=True)
        return adapter.dump_python(value, mode="json", by_alias=True)

    @functools.wraps(encode)
    def call(*args: Any, **kwargs: Any) -> Any:
        return filtered(encode(*args, **kwargs))

    @functools.wraps(encode)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        return filtered(await encode(*args, **kwargs))

    return call_async if is_async(encode) else call
