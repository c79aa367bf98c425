"""Functions in place of handles, in tests of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litplex._calls.call import Call
from litplex._calls.endpoint import IN_FLIGHT, Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator


class Replacement(Endpoint):
    """A function with all forms of calls. Other attributes are those of the function, as a mock
    has them.

    Args:
        endpoint: The handle that it replaces.
        function: A function of the input of a call; it may be ``async`` for the ``async`` forms.
    """

    def __init__(self, endpoint: Endpoint, function: Callable[[Any], Any]) -> None:
        super().__init__(endpoint.name, endpoint.timeout)
        self._function = function

    def __getattr__(self, name: str) -> Any:
        if name == "_function":
            raise AttributeError(name)
        return getattr(self._function, name)

    def __repr__(self) -> str:
        return f"{self._function!r} in place of endpoint({self.name!r})"

    def __call__(self, x: Any) -> Any:
        return self._function(x)

    def later(self, x: Any) -> Call:
        return _Done(self._function, x)

    def map(
        self, items: Iterable[Any], in_flight: int = IN_FLIGHT, return_exceptions: bool = False
    ) -> Iterator[Any]:
        for x in items:
            try:
                result = self._function(x)
            except Exception as error:
                if not return_exceptions:
                    raise
                result = error
            yield result

    def stream(self, x: Any) -> Iterator[Any]:
        return iter(self._function(x))

    async def acall(self, x: Any) -> Any:
        result = self._function(x)
        return await result if hasattr(result, "__await__") else result

    async def amap(
        self, items: Any, in_flight: int = IN_FLIGHT, return_exceptions: bool = False
    ) -> AsyncIterator[Any]:
        async for x in _each(items):
            try:
                result = await self.acall(x)
            except Exception as error:
                if not return_exceptions:
                    raise
                result = error
            yield result

    async def astream(self, x: Any) -> AsyncIterator[Any]:
        async for item in _each(await self.acall(x)):
            yield item


async def _each(values: Any) -> AsyncIterator[Any]:
    if hasattr(values, "__aiter__"):
        async for value in values:
            yield value
    else:
        for value in values:
            yield value


class _Done(Call):
    """A call of a function, which has returned."""

    def __init__(self, function: Callable[[Any], Any], x: Any) -> None:
        self._value: Any = None
        self._error: Exception | None = None
        try:
            self._value = function(x)
        except Exception as error:  # noqa: BLE001  (raised by `result`)
            self._error = error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def done(self) -> bool:
        return True

    def cancel(self) -> None:
        return

    def __await__(self) -> Generator[Any, None, Any]:
        result = self.result()
        return (yield from result.__await__()) if hasattr(result, "__await__") else result

    def _wait_with(self, others: list[Call], all_of_them: bool) -> None:
        return
