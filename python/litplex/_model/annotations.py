"""The annotations of hooks, read without pydantic."""

from __future__ import annotations

import collections.abc
import inspect
import sys
import types
import typing
from typing import Any

from litplex._http import Form

_FRAMEWORKS = ("litplex", "litserve", "fastapi", "starlette")
_ANYTHING = (Any, object, Form)
_JSON = (dict, list, str, int, float, bool, bytes, type(None))
_LISTS = (list, tuple, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))


def signature_of(hook: Any) -> inspect.Signature:
    """Returns the signature of a hook; an empty one where Python cannot tell."""
    how: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        # Else it would evaluate all annotations, and those for type checkers name nothing.
        import annotationlib

        how = {"annotation_format": annotationlib.Format.FORWARDREF}
    try:
        return inspect.signature(hook, **how)
    except (TypeError, ValueError):
        return inspect.Signature()


def request_annotation(hook: Any) -> Any:
    """Returns the name and the annotation of the parameter that gets the request.

    Raises:
        ValueError: the annotation is a text that names nothing.
    """
    parameters = signature_of(hook).parameters
    parameter = parameters.get("request") or next(iter(parameters.values()), None)
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if parameter is None or parameter.kind not in named:
        return "request", Any
    name, annotation = parameter.name, parameter.annotation
    if annotation is parameter.empty:
        return name, Any
    try:
        return name, _resolve(hook, annotation)
    except Exception as error:  # noqa: BLE001  (it is evaluated)
        if str(annotation).rpartition(".")[2] == "Request":
            return name, Any
        raise ValueError(
            f"`{name}` of `decode_request` is annotated `{annotation}`, which cannot be evaluated "
            f"({type(error).__name__}: {error}); import what it names at the top of the module, "
            f"or remove the annotation"
        ) from None


def return_annotation(hook: Any) -> Any:
    """Returns the annotation of what a hook returns, where there is one that can be evaluated."""
    annotation = signature_of(hook).return_annotation
    try:
        return None if annotation is inspect.Signature.empty else _resolve(hook, annotation)
    except Exception:  # noqa: BLE001  (it is evaluated)
        return None


def _resolve(hook: Any, annotation: Any) -> Any:
    # One at a time: names in the others may exist only for type checkers.
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    names = getattr(inspect.unwrap(hook), "__globals__", {})
    return typing.get_type_hints(holder, names, include_extras=True)["it"]


def split(annotation: Any) -> Any:
    """Returns an annotation without ``Annotated`` and ``Optional``, and the names of what FastAPI
    has in it: ``Form``, ``File`` … What says how bytes are written remains."""
    kind, marks = annotation, set()
    if typing.get_origin(kind) is typing.Annotated:
        bare, *notes = typing.get_args(kind)
        kinds = [type(note) for note in notes]
        marks = {each.__name__ for each in kinds if each.__module__.startswith("fastapi.")}
        # Notes that say how bytes are written, such as `ls.Base64`, remain a part of the type.
        if bare is not bytes or not any(map(_has_schema, notes)):
            kind = bare
    members = [each for each in typing.get_args(kind) if each is not type(None)]
    if typing.get_origin(kind) in _UNIONS and len(members) == 1:
        kind = members[0]
    return kind, marks


def _has_schema(note: Any) -> bool:
    return hasattr(note, "__get_pydantic_core_schema__")


def is_unchecked(kind: Any) -> bool:
    """Returns whether a request need not be checked: any JSON fits, or it is a ``Request``."""
    origin = typing.get_origin(kind)
    if origin in _UNIONS:
        return all(map(is_unchecked, typing.get_args(kind)))
    if origin in _LISTS or origin in _MAPPINGS:
        return typing.get_args(kind)[-1:] in ((), (Any,), (object,))
    return kind in _ANYTHING or kind in _JSON or _is_framework(kind, "Request")


def needs_pydantic(annotation: Any) -> bool:
    """Returns whether an annotation asks for more than JSON's own types."""
    return not is_unchecked(split(annotation)[0])


def is_list(kind: Any) -> bool:
    return typing.get_origin(kind) in _LISTS


def is_file(kind: Any) -> bool:
    """Returns whether the type is an ``UploadFile`` or a list of them, of any framework."""
    item = (*typing.get_args(kind), None)[0] if is_list(kind) else kind
    return _is_framework(item, "UploadFile")


def _is_framework(kind: Any, name: str) -> bool:
    return _is_class(kind) and any(
        each.__name__ == name and each.__module__.partition(".")[0] in _FRAMEWORKS
        for each in kind.__mro__
    )


def _is_class(kind: Any) -> bool:
    # `list[int]` says that it is one, up to Python 3.10.
    return isinstance(kind, type) and typing.get_origin(kind) is None


def is_model(kind: Any) -> bool:
    """Returns whether the type is a pydantic model; without pydantic imported, none is."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and _is_class(kind) and issubclass(kind, pydantic.BaseModel)


def has_model(annotation: Any) -> bool:
    return is_model(annotation) or any(map(has_model, typing.get_args(annotation)))
