"""What ``import litserve.mcp`` finds: nothing, with what to do instead."""

from litmux.compat._missing import missing

__getattr__ = missing(__name__, {"MCP": "tools are not supported yet; call the endpoint instead"})
