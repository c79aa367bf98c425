"""What ``import litserve.mcp`` finds."""

from litmux._mcp import MCP

__all__ = ["MCP"]
