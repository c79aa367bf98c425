"""Models as tools of the Model Context Protocol."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from litplex import _options


class MCP:
    """Offers an API as a tool at ``/mcp``.

    Args:
        description: A description of the tool, for the models that choose among tools. Default:
            the docstring of the API's class.
        input_schema: The JSON Schema of the arguments, an object, which is the body that
            ``decode_request`` gets. Default: one argument with the name and the annotation of
            ``decode_request``'s parameter.
        name: The name of the tool. Default: the path of the endpoint, with ``_`` for ``/``.

    Attributes:
        api: The API that is offered, once it exists.
    """

    api: Any = None

    def __init__(
        self,
        description: str | None = None,
        input_schema: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.description = description
        self.input_schema = input_schema
        self.name = name


def description_of(api: Any) -> str:
    """Returns the description of the tool of an API; an empty text if it has none."""
    own = type(api).__dict__.get("__doc__")
    description: str = api.mcp.description or inspect.cleandoc(own or "")
    return description


def mcp_error(api: Any, mcp: Any) -> str | None:
    """Returns the error in the tool of an API; None if there is none."""
    if not isinstance(mcp, MCP):
        return f"`mcp` must be an MCP, not {mcp!r}"
    if not (mcp.description or type(api).__dict__.get("__doc__")):
        return "`mcp` needs a description; give MCP one, or the API's class a docstring"
    schema = mcp.input_schema
    is_object = isinstance(schema, Mapping) and schema.get("type", "object") == "object"
    if schema is not None and not is_object:
        return f"the `input_schema` of `mcp` must be a JSON Schema of an object, not {schema!r}"
    found = _options.json_errors("input_schema", dict(schema or {}))
    return next((f"`mcp`: {error}" for error in found), None)
