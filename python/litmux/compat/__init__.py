"""LitServe's names, served by litmux."""

from litmux import LitAPI

__all__ = ["LitAPI"]
