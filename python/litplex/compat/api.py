"""What ``import litserve.api`` finds."""

from litplex import LitAPI

__all__ = ["LitAPI"]
