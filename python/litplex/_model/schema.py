"""Describes what a model takes and gives, for the server's OpenAPI document."""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable
from typing import Any

from litplex._mcp import description_of
from litplex._model import annotations as hints

_REFERENCE = "#/components/schemas/{model}"
_LOCAL = "#/$defs/{model}"
_JSON_TYPES: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}
_FILE = {"type": "string", "format": "binary"}


def describe(api: Any, as_json: Callable[[str, Any], Any]) -> dict[str, Any]:
    """Returns a dict of JSON: ``summary`` and ``description`` from the docstring of the class,
    ``request`` (schemas by media type) and ``response`` (a schema), ``schemas`` and
    ``response_schemas`` (those that they refer to, by name), ``request_example`` and
    ``response_example``, where each is known.

    Args:
        api: The model.
        as_json: Returns an example, given its name and value, as JSON's own types.

    Formats: JSON Schema as OpenAPI 3.1 has it (https://spec.openapis.org/oas/v3.1.0).

    Raises:
        ValueError: an example is not JSON.
    """
    found: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    request = _request(api, schemas)
    if request:
        found["request"] = request
        found["schemas"] = schemas
    if not api.stream and api.spec is None:
        schemas = {}
        response = _schema(hints.return_annotation(api.encode_response), "serialization", schemas)
        if response:
            found["response"] = response
            found["response_schemas"] = schemas
    for name in ("request_example", "response_example"):
        if getattr(api, name, None) is not None:
            found[name] = as_json(name, getattr(api, name))
    text = inspect.cleandoc(type(api).__dict__.get("__doc__") or "")
    if text:
        summary, _, description = text.partition("\n\n")
        found["summary"] = summary
        if description:
            found["description"] = description
    return found


def tool_of(api: Any) -> dict[str, Any] | None:
    """Returns a dict of JSON of the tool that a model is: ``name`` where it has one,
    ``description``, ``input_schema`` and, where that has one argument that is the body,
    ``argument``, its name. None where it is no tool."""
    if api.mcp is None:
        return None
    tool: dict[str, Any] = {"description": description_of(api)}
    if api.mcp.name:
        tool["name"] = api.mcp.name
    if api.mcp.input_schema is not None:
        return {**tool, "input_schema": {"type": "object", **api.mcp.input_schema}}
    schemas: dict[str, Any] = {}
    name, _ = hints.request_annotation(api.decode_request)
    schema = _request(api, schemas, _LOCAL).get("application/json") or {"title": "Request"}
    schema = {"type": "object", "properties": {name: schema}, "required": [name]}
    if schemas:
        schema["$defs"] = schemas
    return {**tool, "input_schema": schema, "argument": name}


def _request(api: Any, schemas: dict[str, Any], reference: str = _REFERENCE) -> Any:
    if api.spec is not None:
        return {}  # The server knows its protocols.
    name, annotation = hints.request_annotation(api.decode_request)
    kind, marks = hints.split(annotation)
    if hints.is_file(kind):
        field = {"type": "array", "items": _FILE} if hints.is_list(kind) else _FILE
        return {"multipart/form-data": _form(name, field)}
    if hints.is_unchecked(kind) and not marks & {"File", "Form"}:
        return {}
    schema = _schema(annotation, "validation", schemas, reference)
    if not marks & {"File", "Form"}:
        return {"application/json": schema} if schema else {}
    form = schema if hints.is_model(kind) else _form(name, schema or {})
    media_type = "application/x-www-form-urlencoded" if "Form" in marks else "multipart/form-data"
    return {media_type: form}


def _form(name: str, field: dict[str, Any]) -> Any:
    return {"type": "object", "properties": {name: field}, "required": [name]}


def schema_of(annotation: Any, mode: str, schemas: dict[str, Any]) -> Any:
    """Returns the JSON Schema of a type, and adds those that it refers to; None if it is unknown.

    Args:
        annotation: The type; None for an unknown one.
        mode: ``validation`` for values that are read, ``serialization`` for those that are written.
        schemas: The schemas by name, to which ``#/components/schemas/NAME`` refers.
    """
    kind = _JSON_TYPES.get(typing.get_origin(annotation) or annotation)
    if kind and (annotation is None or not hints.needs_pydantic(annotation)):
        return {"type": kind}
    return _schema(annotation, mode, schemas)


def _finite(value: Any) -> Any:
    """Returns a schema without the keywords whose values JSON cannot hold: a default of infinity,
    a limit of none. What is checked is the same."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items() if not _is_infinite(each)}
    return list(map(_finite, value)) if isinstance(value, list) else value


def _is_infinite(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_infinite, value))
    return isinstance(value, float) and not math.isfinite(value)


def _schema(
    annotation: Any, mode: str, schemas: dict[str, Any], reference: str = _REFERENCE
) -> Any:
    """Returns the schema of what pydantic checks, and adds those that it refers to."""
    if annotation is None or not hints.needs_pydantic(annotation):
        return None
    from pydantic import TypeAdapter

    try:
        schema = TypeAdapter(annotation).json_schema(mode=mode, ref_template=reference)
    except Exception:  # noqa: BLE001  (what can be checked cannot always be described)
        return None
    schema = _finite(schema)
    schemas.update(schema.pop("$defs", {}))
    # Of a model that refers to itself it is a reference already.
    if not hints.is_model(annotation) or "$ref" in schema:
        return schema
    # As pydantic names models of a generic one, and OpenAPI wants names.
    name = re.sub(r"[^a-zA-Z0-9._-]", "_", annotation.__name__)
    if schemas.setdefault(name, schema) != schema:
        return schema
    return {"$ref": reference.format(model=name)}
