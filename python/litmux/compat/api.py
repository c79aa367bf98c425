"""What ``import litserve.api`` finds."""

from litmux import LitAPI

__all__ = ["LitAPI"]
