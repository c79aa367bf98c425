"""The module ``litserve.specs.base``."""

from litplex._specs import LitSpec

__all__ = ["LitSpec"]
