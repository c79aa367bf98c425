"""The rules for the hooks of a model, as far as they can be checked before it loads."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from litplex._api import ContinuousAPI, LitAPI, is_async, is_generator, is_method_of, unwrapped

# The arguments of each hook, besides a `context` that it names.
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "setup": ("device",),
    "decode_request": ("request",),
    "batch": ("inputs",),
    "predict": ("x",),
    "unbatch": ("output",),
    "encode_response": ("output",),
}
_CONTINUOUS_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    **{name: _ARGUMENTS[name] for name in ("setup", "decode_request", "encode_response")},
    "admit": ("x",),
    "step": ("sequences",),
    "finish": ("sequence", "reason"),
}
# Hooks that `setup` may set.
_SET_BY_SETUP = ("admit", "step", "predict", "encode_response", "unbatch")
# The hooks of a ContinuousAPI, which its loop calls between steps.
_PLAIN = ("admit", "step", "finish", "decode_request", "encode_response")


def errors(api: LitAPI, stream: bool | None = None, *, is_set_up: bool = False) -> Iterator[str]:
    """Yields a sentence for each hook of a model that is missing or has the wrong form.

    Args:
        api: The model.
        stream: Whether its responses are streams. Default: the ``stream`` of the model.
        is_set_up: Whether ``setup`` has been called. Before, hooks that ``setup`` sets are unknown.
    """
    if not is_set_up and any(_is_set_by_setup(api, name) for name in _SET_BY_SETUP):
        return
    is_continuous = isinstance(api, ContinuousAPI)
    needed: tuple[tuple[str, type], ...] = (("predict", LitAPI),)
    if is_continuous:
        needed = (("admit", ContinuousAPI), ("step", ContinuousAPI))
    checks_early = type(api) is not LitAPI and api._litplex_profile.checks_hooks_early
    if not (is_set_up or checks_early):
        needed = ()  # The call of the hook raises.
    for name, base in needed:
        if is_method_of(getattr(api, name), getattr(base, name)):
            yield f"`{name}` is missing: {type(api).__name__} must implement it"
    for name, arguments in (_CONTINUOUS_ARGUMENTS if is_continuous else _ARGUMENTS).items():
        yield from _shape_errors(name, getattr(api, name), arguments)
    if is_continuous:
        for name in _PLAIN:
            if is_async(getattr(api, name)) or is_generator(getattr(api, name)):
                yield f"`{name}` of a ContinuousAPI must be a plain function"
    elif api.spec is None:
        yield from _stream_errors(api, bool(api.stream if stream is None else stream))


def _is_set_by_setup(api: LitAPI, name: str) -> bool:
    """Returns whether ``setup`` contains the name of a hook: it may set that hook."""
    codes = (getattr(vars(kind).get("setup"), "__code__", None) for kind in type(api).__mro__)
    return any(name in (*code.co_names, *code.co_consts) for code in codes if code is not None)


def _shape_errors(name: str, hook: Any, arguments: tuple[str, ...]) -> Iterator[str]:
    if not callable(hook):
        yield f"`{name}` must be a method, not {hook!r}"
        return
    try:
        signature = inspect.signature(hook)
    except (TypeError, ValueError):
        return  # Functions written in C may have no signature.
    context = {"context": None} if "context" in signature.parameters else {}
    try:
        signature.bind(*arguments, **context)
    except TypeError:
        yield (
            f"`{name}` must take its arguments: "
            f"`def {name}(self, {', '.join(arguments)})`, not `{name}{signature}`"
        )


def _stream_errors(api: LitAPI, stream: bool) -> Iterator[str]:
    if not stream:
        for name in ("predict", "encode_response"):
            if is_generator(getattr(api, name)):
                yield (
                    f"`{name}` is a generator; set stream=True, or return a value: when "
                    "`stream=False`, `predict` and `encode_response` must not be generators"
                )
    elif not is_generator(api.predict) and _is_python(api.predict):
        if not is_method_of(api.predict, LitAPI.predict):
            yield (
                "`predict` does not yield, and when `stream=True` it must generate values using "
                "`yield`; write `yield from` what it returns, or leave out stream"
            )
    elif is_async(api.predict):
        for name in ("encode_response", "unbatch"):
            if inspect.isgeneratorfunction(unwrapped(getattr(api, name))):
                yield (
                    f"`{name}` is a plain generator over the outputs of an async `predict`; "
                    f"make it `async def`, or a function of one output"
                )


def _is_python(hook: Any) -> bool:
    return hasattr(unwrapped(hook), "__code__")
