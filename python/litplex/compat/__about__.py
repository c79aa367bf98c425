"""The module ``litserve.__about__``: the release of LitServe whose behaviour litplex has."""

__version__ = "0.2.19"

__all__ = ["__version__"]
