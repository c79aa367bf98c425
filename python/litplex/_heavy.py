"""Warns of models that load where they are made, instead of in ``setup``."""

from __future__ import annotations

import abc
import time
import warnings
from typing import Any

_HEAVY_SECONDS = 1.0
# Where the `setup` is that loads nothing.
_API = "litplex._api"


# Of `ABCMeta`, so that models may be abstract classes too.
class WarnsOfHeavyInit(abc.ABCMeta):
    """Makes a class warn where ``__init__`` takes a second or more and there is no ``setup``."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        api = super().__call__(*args, **kwargs)
        seconds = time.monotonic() - start
        if seconds >= _HEAVY_SECONDS and not _has_setup(cls):
            warnings.warn(
                f"making {cls.__name__} took {seconds:.1f} s, and it has no `setup`. Avoid loading "
                "a model or doing other heavy processing inside the constructor: `setup(device)` "
                "runs in each worker, on its device",
                RuntimeWarning,
                stacklevel=2,
            )
        return api


def _has_setup(cls):
    return any("setup" in vars(base) for base in cls.__mro__ if base.__module__ != _API)
