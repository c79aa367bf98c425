"""Does something to each value that ``encode_response`` gives; not imported where nothing is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litplex._api import FINISHED
from litplex._worker.hooks import async_hooks as calls
from litplex._worker.hooks.outputs import close

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from litplex._worker.hooks.hooks import Hooks


def converted(encode: Any, convert: Callable[[Any], Any], hooks: Hooks) -> Any:
    """Returns ``encode`` with each of its values converted.

    Args:
        encode: A function of what the hook gets and a context.
        convert: A function of one value; where it raises, that value's request fails alone.
        hooks: Say whether ``encode`` gets a whole stream, and whether that is one of a batch.
    """
    if not hooks.encodes_stream:
        return lambda output, context: _convert_one(encode(output, context), convert)
    convert_step = _over_batch(convert) if hooks.max_batch_size > 1 else convert
    return lambda outputs, context: each_converted(encode(outputs, context), convert_step)


def _convert_one(value: Any, convert: Callable[[Any], Any]) -> Any:
    return _convert_later(value, convert) if hasattr(value, "__await__") else convert(value)


async def _convert_later(value: Any, convert: Callable[[Any], Any]) -> Any:
    return convert(await value)


def _over_batch(convert: Callable[[Any], Any]) -> Any:
    def convert_or_keep(value: Any) -> Any:
        if value is FINISHED or isinstance(value, BaseException):
            return value
        try:
            return convert(value)
        except BaseException as error:  # noqa: BLE001  (one item fails alone)
            return error

    return lambda values: [convert_or_keep(value) for value in values]


def each_converted(values: Any, convert: Callable[[Any], Any]) -> Any:
    """Returns a generator of converted values, ``async`` where the values are."""
    return (_each_async if hasattr(values, "__aiter__") else _each)(values, convert)


def _each(values: Any, convert: Callable[[Any], Any]) -> Iterator[Any]:
    try:
        for value in values:
            yield convert(value)
    finally:
        close(values)


async def _each_async(values: Any, convert: Callable[[Any], Any]) -> AsyncIterator[Any]:
    try:
        async for value in values:
            yield convert(value)
    finally:
        await calls.close(values)
