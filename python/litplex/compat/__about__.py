"""What ``import litserve.__about__`` finds."""

from litplex.compat import __version__

__all__ = ["__version__"]
