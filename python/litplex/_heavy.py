"""Warns about models that load in ``__init__`` instead of ``setup``."""

from __future__ import annotations

import abc
import inspect
import re
import time
import warnings
from typing import Any

from litplex import _options

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_HEAVY_SECONDS = 1.0
# The module of the `setup` that loads nothing.
_API = "litplex._api"


# A subclass of `ABCMeta`, so that models may be abstract classes, too.
class WarnsOfHeavyInit(abc.ABCMeta):
    """The metaclass of models. It warns if ``__init__`` takes a second or more, without a
    ``setup``. A function that replaces a handle of an endpoint on the class takes its place: it
    does not become a method."""

    def __setattr__(cls, name: str, value: Any) -> None:
        present = inspect.getattr_static(cls, name, None)
        if hasattr(type(present), "replaced_by"):
            value = present.replaced_by(value)
        elif hasattr(type(value), "replaced_by"):
            value.__set_name__(cls, name)
        super().__setattr__(name, value)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        try:
            api = super().__call__(*args, **kwargs)
        except TypeError as error:
            _add_hint(error, kwargs)
            raise
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


def _has_setup(cls: type) -> bool:
    return any("setup" in vars(base) for base in cls.__mro__ if base.__module__ != _API)


def _add_hint(error: TypeError, kwargs: dict[str, Any]) -> None:
    """Adds a hint to an error about an argument that no API has."""
    found = _UNEXPECTED.search(str(error))
    if found and (found[1] in kwargs or "LitAPI.__init__" in str(error)):
        error.args = (f"{error}; {_options.hint_for_argument(found[1])}",)
