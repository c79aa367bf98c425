"""What ``import litserve.specs.base`` finds."""

from litmux._specs import LitSpec

__all__ = ["LitSpec"]
