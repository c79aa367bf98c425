"""What ``import litserve.__about__`` finds: the LitServe release whose behaviour is served."""

__version__ = "0.2.19"

__all__ = ["__version__"]
