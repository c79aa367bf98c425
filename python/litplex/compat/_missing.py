"""Names of LitServe that litplex does not offer, and their replacements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def missing(module: str, instead: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a ``__getattr__`` for a module.

    Args:
        module: The name of the module.
        instead: For each name that is not offered, a sentence that says what to do.
    """

    def get(name: str) -> Any:
        place = module.replace("litplex.compat", "litserve", 1)
        if name in instead:
            raise ImportError(f"litplex has no `{place}.{name}`: {instead[name]}")
        raise AttributeError(f"module {place!r} has no attribute {name!r}")

    return get


def unavailable(name: str, instead: str) -> Any:
    """Returns a class that replaces one of LitServe without a counterpart. It can be imported,
    annotated with and subclassed; creating an object raises an error with the alternative.

    Args:
        name: The name of the class in LitServe, with its module.
        instead: A sentence that says what to do.
    """

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError(f"litplex has no `{name}`: {instead}")

    body = {"__new__": refuse, "__doc__": f"Not offered: {instead}."}
    return type(name.rpartition(".")[2], (Exception,), body)


def unavailable_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a ``__getattr__`` for a module of which litplex has no class.

    Args:
        module: The name of the module.
        names: For each class, a sentence that says what to do.
    """
    place = module.replace("litplex.compat", "litserve", 1)
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {place!r} has no attribute {name!r}")
        if name not in made:
            made[name] = unavailable(f"{place}.{name}", names[name])
        return made[name]

    return get
