"""The module ``litserve.mcp``."""

from __future__ import annotations

import dataclasses
from typing import Any

import litplex
from litplex._model.schema import tool_of
from litplex.compat._missing import unavailable_names

__all__ = ["MCP", "ToolEndpointType"]

_SERVER = "the server has the protocol at `/mcp`; give LitAPI an MCP"

__getattr__ = unavailable_names(
    __name__,
    {
        "_LitMCPServerConnector": _SERVER,
        "_param_name_to_title": _SERVER,
        "_python_type_to_json_schema": _SERVER,
        "extract_input_schema": _SERVER,
    },
)


@dataclasses.dataclass
class ToolEndpointType:
    """A tool, and the path of its endpoint; ``inputSchema`` is the JSON Schema of its arguments."""

    name: str
    description: str
    inputSchema: dict[str, Any]
    endpoint: str


class MCP(litplex.MCP):
    """:class:`litplex.MCP` with a method that returns its tool."""

    def as_tool(self) -> ToolEndpointType:
        """Returns the tool.

        Raises:
            RuntimeError: no LitAPI has this MCP.
        """
        if self.api is None:
            raise RuntimeError("MCP is not connected to a LitAPI. Give it to one: LitAPI(mcp=…)")
        tool, path = tool_of(self.api) or {}, self.api.api_path
        return ToolEndpointType(
            name=tool.get("name") or path.strip("/").replace("/", "_"),
            description=tool["description"],
            inputSchema=dict(self.input_schema or tool["input_schema"]),
            endpoint=path,
        )
