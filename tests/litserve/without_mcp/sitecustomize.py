"""Hides the package `mcp` from LitServe, which does not start where it is without `fastmcp`."""

import sys

sys.modules["mcp"] = None
