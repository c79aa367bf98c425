"""What ``import litserve.specs.base`` finds."""

from litplex._specs import LitSpec

__all__ = ["LitSpec"]
