"""Handles of endpoints, which hooks call."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from litplex._calls.transport import Target, refuse_on_loop, transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from litplex._calls.call import Call
    from litplex._calls.types import CallTypes

#: The default of ``in_flight``.
IN_FLIGHT = 64


class Endpoint:
    """A handle of another endpoint of the server, made by :func:`litplex.endpoint`.

    A call gives the callee's hooks what a client's request would: a value that JSON can hold, or
    ``bytes`` as of any other content type. ``bytes``, ``memoryview`` and numpy arrays, also within
    lists and dicts, are sent as they are; the callee gets ``bytes`` and read-only arrays. The
    result is what the callee's ``encode_response`` returned, a ``str`` for a response that is text,
    or the list of the items of a stream.

    The call has the rest of the time budget of the request that it is made for, and is cancelled
    when that request has no caller any longer or is answered.

    In a test, any function takes the place of the handle: ``api.ocr = lambda x: …``.
    """

    def __init__(
        self, name: str, timeout: float | None = None, types: CallTypes | None = None
    ) -> None:
        _check_name(name)
        _check_timeout(timeout)
        self._target = Target(name, timeout, f"ls.endpoint({name!r})", types)
        self._attribute: str | None = None

    @property
    def name(self) -> str:
        """The path of the endpoint, or its name."""
        return self._target.name

    @property
    def timeout(self) -> float | None:
        """The most seconds that a call may take; None for the rest of the caller's budget."""
        return self._target.timeout

    def __repr__(self) -> str:
        timeout = "" if self.timeout is None else f", timeout={self.timeout!r}"
        return f"endpoint({self.name!r}{timeout})"

    # As an attribute of a class, a handle can be replaced on an instance, and on the class (by
    # the metaclass of `LitAPI`); the function that replaces it has all forms of calls.

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name
        self._target = self._target._replace(shown=f"self.{name}")

    def __get__(self, instance: Any, owner: type | None = None) -> Endpoint:
        if instance is None:
            return self
        found: Endpoint = vars(instance).get(self._attribute or "", self)
        return found

    def __set__(self, instance: Any, value: Any) -> None:
        if self._attribute is None:
            raise AttributeError(f"{self!r} is an attribute whose name is not known; set the name")
        vars(instance)[self._attribute] = self.replaced_by(value)

    def __delete__(self, instance: Any) -> None:
        if vars(instance).pop(self._attribute or "", None) is None:
            raise AttributeError(f"`{self._attribute}` is not replaced")

    def replaced_by(self, value: Any) -> Any:
        """Returns the handle that stands in for this one: another handle, or a function, which gets
        all forms of calls.

        Raises:
            TypeError: the value is neither.
        """
        if isinstance(value, Endpoint):
            return value
        if not callable(value):
            raise TypeError(
                f"`{self._target.shown}` is a handle of the endpoint `{self.name}`, and can be "
                f"replaced by another one or by a function, not by {value!r}"
            )
        from litplex._calls.replacement import Replacement

        replacement = Replacement(self, value)
        replacement._attribute = self._attribute
        return replacement

    def __call__(self, x: Any) -> Any:
        """Calls the endpoint with ``x``, and waits for its result.

        Raises:
            CallError: the call failed.
            ValueError: ``x`` cannot be sent; the message has the place of the value.
            RuntimeError: no call can be made here, or this thread runs an event loop.
        """
        target = self._target
        refuse_on_loop(f"{target.shown}(x)", f"await {target.shown}.acall(x)")
        return transport(target).call(target, x)

    def later(self, x: Any) -> Call:
        """Begins a call, and returns it without waiting; ``result()`` of it, or ``ls.gather``,
        waits. In an ``async`` hook it may be awaited.

        Raises:
            ValueError: ``x`` cannot be sent.
            RuntimeError: no call can be made here.
        """
        return transport(self._target).later(self._target, x)

    def map(
        self, items: Iterable[Any], in_flight: int = IN_FLIGHT, return_exceptions: bool = False
    ) -> Iterator[Any]:
        """Calls the endpoint with each item, several at the same time, and yields the results in
        the order of the items.

        The items are taken as they are needed. A generator that is closed cancels the calls that
        are not done.

        Args:
            items: The inputs, one of each call.
            in_flight: The most calls at the same time. Default: 64.
            return_exceptions: Whether the exception of a call that failed is yielded in its place.
                Default: False, it is raised.

        Raises:
            CallError: a call failed.
            ValueError: an item cannot be sent, or ``in_flight`` is not at least 1.
            RuntimeError: no call can be made here, or this thread runs an event loop.
        """
        target = self._target
        refuse_on_loop(f"{target.shown}.map(…)", f"async for y in {target.shown}.amap(…)")
        _check_in_flight(in_flight)
        return transport(target).map(target, items, in_flight, return_exceptions)

    def stream(self, x: Any) -> Iterator[Any]:
        """Calls the endpoint with ``x``, and returns an iterator over the items of its stream:
        values of JSON, ``str`` or ``bytes``, as the callee yields them. A response that is no
        stream is one item. ``close()`` of the iterator cancels the call.

        Raises:
            CallError: the call failed; also while the items are read.
            ValueError: ``x`` cannot be sent.
            RuntimeError: no call can be made here, or this thread runs an event loop.
        """
        target = self._target
        refuse_on_loop(f"{target.shown}.stream(x)", f"async for y in {target.shown}.astream(x)")
        return transport(target).stream(target, x)

    async def acall(self, x: Any) -> Any:
        """Calls the endpoint with ``x`` as a call of the handle does, for ``async`` hooks. A task
        that is cancelled cancels the call."""
        return await transport(self._target).acall(self._target, x)

    def amap(
        self, items: Any, in_flight: int = IN_FLIGHT, return_exceptions: bool = False
    ) -> AsyncIterator[Any]:
        """Calls the endpoint as :meth:`map` does, for ``async`` hooks; ``items`` may be an
        asynchronous iterator."""
        _check_in_flight(in_flight)
        return transport(self._target).amap(self._target, items, in_flight, return_exceptions)

    def astream(self, x: Any) -> AsyncIterator[Any]:
        """Calls the endpoint as :meth:`stream` does, for ``async`` hooks; ``aclose()`` of the
        iterator cancels the call."""
        return transport(self._target).astream(self._target, x)


def endpoint(
    name: str, *, timeout: float | None = None, takes: Any = None, returns: Any = None
) -> Endpoint:
    """Returns a handle of another endpoint of the server, which hooks call. As an attribute of the
    model it declares that the model calls that endpoint, so that the server checks it at the start.

    Args:
        name: The path of the endpoint, ``"/ocr"``, or its name, ``"ocr"``.
        timeout: The most seconds that a call may take. It may only shorten the time budget of the
            request that the call is made for. Default: None, the rest of that budget.
        takes: The type of the values that calls give, as pydantic reads types: values are checked
            against it, and models and dataclasses are sent as objects of JSON. Default: None, any.
        returns: The type of the result, or of each item of a stream: it is converted to that type.
            Default: None, values of JSON.

    The server does not start if a declared type cannot fit what the endpoint declares to take or
    to return. JSON's own types (``str``, ``dict``, ``list[Any]``) are only checked in this way.

    Raises:
        ValueError: the name is not a text, or the timeout is not positive.
    """
    if takes is None and returns is None:
        return Endpoint(name, timeout)
    from litplex._calls.types import CallTypes

    return Endpoint(name, timeout, CallTypes(takes, returns))


@functools.lru_cache(maxsize=256)
def _named(name: str, timeout: float | None) -> Endpoint:
    return Endpoint(name, timeout)


def named(name: str, timeout: float | None = None) -> Endpoint:
    """Returns the handle of a name that a hook chooses at run time."""
    _check_name(name)
    _check_timeout(timeout)
    return _named(name, timeout)


def declared_calls(api: Any) -> list[str]:
    """Returns the names of the endpoints whose handles are attributes of a model."""
    return list(dict.fromkeys(handle.name for handle in _handles(api)))


def declared_types(api: Any) -> list[dict[str, Any]]:
    """Returns the types of the handles that are attributes of a model and declare them: dicts of
    JSON with ``handle`` and ``endpoint``, and what is known of ``takes``, ``returns`` and
    ``schemas``.

    Raises:
        ValueError: a type is not known to pydantic, or pydantic is missing.
    """
    return [
        {"handle": target.shown, "endpoint": target.name, **target.types.schemas()}
        for target in (handle._target for handle in _handles(api))
        if target.types is not None
    ]


def _handles(api: Any) -> Iterator[Endpoint]:
    for holder in (*reversed(type(api).__mro__), api):
        for value in vars(holder).values() if hasattr(holder, "__dict__") else ():
            if isinstance(value, Endpoint):
                yield value


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"invalid endpoint {name!r}: expected its path, such as `/ocr`, or its name; write "
            '`ls.endpoint("/ocr")`'
        )


def _check_timeout(timeout: Any) -> None:
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and timeout > 0 and math.isfinite(timeout)):
        raise ValueError(
            f"invalid timeout {timeout!r} of an endpoint: expected a number of seconds above 0, or "
            "None for the rest of the caller's budget"
        )


def _check_in_flight(count: Any) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"invalid in_flight {count!r}: expected an integer of at least 1")
