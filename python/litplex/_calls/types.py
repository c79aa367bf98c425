"""The types of a handle: what its calls give and get."""

from __future__ import annotations

import functools
import inspect
import reprlib
import typing
from typing import Any

from litplex._calls.errors import CallError
from litplex._model import annotations as hints
from litplex._model.schema import schema_of


class CallTypes:
    """The types that :func:`litplex.endpoint` declares.

    pydantic is imported where a type needs it, at the first call or when the model is described.

    Args:
        takes: The type of the values that are given; None if it is not declared.
        returns: The type of the result, or of each item of a stream; None if it is not declared.
    """

    def __init__(self, takes: Any, returns: Any) -> None:
        self.takes = takes
        self.returns = returns

    def __reduce__(self) -> Any:
        # pydantic's adapters cannot be pickled.
        return CallTypes, (self.takes, self.returns)

    def dump(self, x: Any, shown: str) -> Any:
        """Returns an input as values of JSON, if its type is more than these.

        Raises:
            ValueError: it is not of the declared type.
        """
        adapter = self._input
        if adapter is None:
            return x
        from pydantic import ValidationError

        try:
            return adapter.dump_python(adapter.validate_python(x), mode="json")
        except ValidationError as error:
            raise ValueError(
                f"the input of `{shown}` is not `{_shown(self.takes)}`: {_first(error)}"
            ) from None

    def read(self, value: Any, name: str) -> Any:
        """Returns a result as the declared type.

        Raises:
            CallError: it is not of that type; the status is 502.
        """
        adapter = self._result
        if adapter is None:
            return value
        from pydantic import ValidationError

        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            detail = f"its result is not `{_shown(self.returns)}`: {_first(error)}"
        raise CallError(502, detail, [name])

    def schemas(self) -> dict[str, Any]:
        """Returns a dict of JSON: ``takes`` and ``returns``, and ``schemas``, to which they refer
        by name; where each is known. Format: JSON Schema, as in OpenAPI 3.1.

        Raises:
            ValueError: a type is not known to pydantic, or pydantic is missing.
        """
        found: dict[str, Any] = {}
        others: dict[str, Any] = {}
        _ = self._input, self._result
        for name, annotation in (("takes", self.takes), ("returns", self.returns)):
            schema = schema_of(annotation, "validation", others)
            if schema is not None:
                found[name] = schema
        return {**found, "schemas": others} if others else found

    @functools.cached_property
    def _input(self) -> Any:
        return _adapter("takes", self.takes)

    @functools.cached_property
    def _result(self) -> Any:
        return _adapter("returns", self.returns)


def _adapter(which: str, annotation: Any) -> Any:
    """Returns pydantic's adapter of a type; None for JSON's own types, which are not converted."""
    if annotation is None or not hints.needs_pydantic(annotation):
        return None
    what = f"`{which}={_shown(annotation)}` of `ls.endpoint`"
    try:
        from pydantic import TypeAdapter
    except ImportError:
        raise ValueError(
            f"{what} needs pydantic 2, which is not installed for this worker; "
            '`pip install "litplex[typed]"` in its environment, or remove it'
        ) from None
    try:
        return TypeAdapter(annotation)
    except Exception as error:  # noqa: BLE001  (pydantic has many, and types bring their own)
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{what} is no type that pydantic knows: {reason}") from None


def _shown(annotation: Any) -> str:
    plain = isinstance(annotation, type) and not typing.get_args(annotation)
    return annotation.__qualname__ if plain else inspect.formatannotation(annotation)


def _first(error: Any) -> str:
    """Returns the first of pydantic's errors, with its place."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    text = f"{first['msg']}, got {reprlib.repr(first['input'])}"
    return f"`{place}`: {text}" if place else text
