"""Converts each value of ``encode_response``; imported only for models that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litplex._api import FINISHED
from litplex._worker.hooks.outputs import aclose, close

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def converted(encode: Any, convert: Callable[[Any], Any], is_stream: bool, is_batch: bool) -> Any:
    """Returns ``encode`` with each of its values converted.

    Args:
        encode: A function of the argument of the hook and a context.
        convert: A function of one value; if it raises, the request of that value fails alone.
        is_stream: Whether ``encode`` takes a whole stream.
        is_batch: Whether that is the stream of a batch.
    """
    if not is_stream:
        return lambda output, context: _convert_one(encode(output, context), convert)
    convert_step = _over_batch(convert) if is_batch else convert
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
        await aclose(values)
