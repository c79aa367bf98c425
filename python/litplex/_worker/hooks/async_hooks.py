"""Calls hooks of which some are ``async``, in the same order as ``hooks.py`` calls plain ones."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from litplex._api import FINISHED, is_async
from litplex._worker.hooks.outputs import as_list, checked_stream
from litplex._worker.wire.encode import encode_error
from litplex._worker.wire.stages import end_stage, stages_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from litplex._http import Context
    from litplex._worker.hooks.hooks import Hooks
    from litplex._worker.wire.encode import Answer
    from litplex._worker.wire.stages import Stages

#: Tasks that were cancelled because no caller waits for their responses.
cancelled: weakref.WeakSet[Any] = weakref.WeakSet()


def is_own(error: BaseException) -> bool:
    """Returns whether an exception is the failure of a hook, not the cancellation of a task whose
    callers have left."""
    import asyncio  # Programs with plain hooks also import this module.

    was_cancelled = isinstance(error, asyncio.CancelledError)
    return not (was_cancelled and asyncio.current_task() in cancelled)


async def settle(result: Any) -> Any:
    """Returns the result of a hook, awaited if it is awaitable."""
    return await result if hasattr(result, "__await__") else result


async def answer(hooks: Hooks, request: Any, context: Context | None) -> Any:
    """Computes one request; returns the status, flags and payload of its response."""
    # `settle` is inlined here: a call for each hook would reduce the throughput.
    if context is None:
        decode, compute, encode = hooks.plain
        value = decode(request)
        if hasattr(value, "__await__"):
            value = await value
        value = compute(value)
        if hasattr(value, "__await__"):
            value = await value
        value = encode(value)
    else:
        if context._stages is not None:
            return await _answer_measured(hooks, request, context, context._stages)
        value = await settle(hooks.decode(request, context))
        value = await settle(hooks.compute(value, context))
        value = hooks.encode(value, context)
    if hasattr(value, "__await__"):
        value = await value
    answer = hooks.body_of(value, context)
    return answer if type(answer) is tuple else await answer


async def _answer_measured(
    hooks: Hooks, request: Any, context: Context | None, stages: Stages
) -> Answer:
    value = await settle(hooks.decode(request, context))
    stages.end()
    value = await settle(hooks.compute(value, context))
    stages.end()
    answer = await _encode(hooks, await settle(hooks.encode(value, context)), context)
    stages.end()
    return stages.added_to(answer)


async def answer_batch(
    hooks: Hooks, inputs: list[Any], contexts: Sequence[Context | None]
) -> list[Answer]:
    """Computes a batch; returns the status, flags and payload of a response for each."""
    measured = stages_of(contexts)
    for stages in measured:
        stages.begin()
    batch = await settle(hooks.batch(inputs, contexts))
    output = await settle(hooks.compute(batch, contexts))
    outputs = as_list(await settle(hooks.unbatch(output, contexts)), len(inputs))
    for stages in measured:
        stages.end()
    return [await _encode_item(hooks, *pair) for pair in zip(outputs, contexts)]


async def _encode_item(hooks: Hooks, output: Any, context: Context | None) -> Answer:
    try:
        if isinstance(output, BaseException):
            raise output
        if context is not None and context._stages is not None:
            context._stages.begin()
        answer = await _encode(hooks, await settle(hooks.encode(output, context)), context)
        if context is None or context._stages is None:
            return answer
        context._stages.end()
        measured: Answer = context._stages.added_to(answer)
        return measured
    except BaseException as error:
        if not is_own(error):
            raise
        return encode_error(error)


async def _encode(hooks: Hooks, value: Any, context: Context | None) -> Answer:
    answer = hooks.body_of(value, context)
    return answer if type(answer) is tuple else await answer


async def outputs(hooks: Hooks, request: Any, context: Context | None) -> Any:
    """Returns the iterator of one stream, and the iterator to close if it ends early."""
    x = await settle(hooks.decode(request, context))
    end_stage(context)
    source = checked_stream(await settle(hooks.compute(x, context)))
    if hooks.encodes_stream:
        return _encode_stream(hooks, source, context), source
    return _encode_each(hooks, each(source), context), source


async def steps(hooks: Hooks, inputs: list[Any], contexts: Sequence[Context | None]) -> Any:
    """Returns the iterator of a batch of streams, and the iterator to close if it ends early."""
    batch = await settle(hooks.batch(inputs, contexts))
    source = checked_stream(await settle(hooks.compute(batch, contexts)))
    if hooks.unbatches_stream:
        steps = each(source) if is_async(hooks.api.unbatch) else source
        unbatched = hooks.unbatch(steps, contexts)
    else:
        unbatched = _unbatch_each(hooks, each(source), contexts)
    if hooks.encodes_stream:
        unbatched = _encode_stream(hooks, unbatched, contexts)
    return each(unbatched), source


async def encoded(encode: Any, output: Any, context: Context | None) -> Any:
    """Returns the encoded output, or the exception of its encoding."""
    if encode is None or output is FINISHED or isinstance(output, BaseException):
        return output
    try:
        return await settle(encode(output, context))
    except BaseException as error:
        if not is_own(error):
            raise
        return error


def each(values: Any) -> Any:
    """Returns an asynchronous iterator over the values of a plain or ``async`` generator."""
    return values if hasattr(values, "__aiter__") else _each(values)


async def _each(values: Any) -> AsyncIterator[Any]:
    for value in values:
        yield value


def _encode_stream(hooks: Hooks, source: Any, context: Any) -> Any:
    if is_async(hooks.api.encode_response):
        source = each(source)
    return each(hooks.encode(source, context))


async def _encode_each(hooks: Hooks, source: Any, context: Context | None) -> AsyncIterator[Any]:
    async for output in source:
        yield await settle(hooks.encode(output, context))


async def _unbatch_each(
    hooks: Hooks, source: Any, contexts: Sequence[Context | None]
) -> AsyncIterator[Any]:
    async for output in source:
        yield await settle(hooks.unbatch(output, contexts))
