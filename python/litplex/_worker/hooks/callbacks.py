"""Lets a model's callbacks follow its hooks: LitServe's events of a worker."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from litplex._api import ContinuousAPI, has_async_hooks
from litplex._callbacks import trigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def follow(api: Any, *names: str) -> None:
    """Replaces hooks of an instance by ones that tell its callbacks before and after.

    As in LitServe, sequences that are batched continuously have no events, and those of a batch
    of plain hooks are of the batch, not of its items.
    """
    if isinstance(api, ContinuousAPI) and names != ("setup",):
        return
    is_batched = "predict" in names and api.max_batch_size > 1 and not has_async_hooks(api)
    if is_batched:
        _follow_batches(api)
        names = ("predict", "encode_response") if api.stream else ("predict",)
    for name in names:
        # Those of a generator enclose its values.
        yields = bool(api.stream) and name in ("predict", "encode_response")
        before, after = _events(api, name)
        setattr(api, name, _followed(getattr(api, name), before, after, yields))


def _events(api: Any, name: str) -> Any:
    fire = functools.partial(trigger, api._litserve_callbacks)
    return (
        functools.partial(fire, f"on_before_{name}", lit_api=api),
        functools.partial(fire, f"on_after_{name}", lit_api=api),
    )


def _followed(hook: Any, before: Any, after: Any, yields: bool) -> Any:
    """Returns the hook with its events. It unwraps to the hook, whose kind decides how it is run,
    and its ``around`` puts the same events around another."""

    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        before()
        return _ended(hook(*args, **kwargs), after, yields)

    around = functools.partial(_followed, before=before, after=after, yields=yields)
    call.around = around  # type: ignore[attr-defined]
    return call


def _ended(result: Any, after: Any, yields: bool) -> Any:
    """Returns what a hook returned, with its second event where that ends."""
    if hasattr(result, "__await__"):
        return _awaited(result, after)
    if yields and hasattr(result, "__aiter__"):
        return _each_async(result, after)
    if yields and hasattr(result, "__next__"):
        return _each(result, after)
    after()
    return result


def _each(values: Any, after: Any) -> Iterator[Any]:
    yield from values
    after()


async def _each_async(values: Any, after: Any) -> AsyncIterator[Any]:
    try:
        async for value in values:
            yield value
    finally:
        if hasattr(values, "aclose"):
            await values.aclose()
    after()


async def _awaited(result: Any, after: Any) -> Any:
    result = await result
    after()
    return result


def _follow_batches(api: Any) -> None:
    """Fires around all decoding and all encoding of a batch. The decoding of one ends where
    ``batch`` is called, and ``unbatch`` tells how many outputs there are to encode."""
    decode, batch, unbatch, encode = api.decode_request, api.batch, api.unbatch, api.encode_response
    before_decode, after_decode = _events(api, "decode_request")
    before_encode, after_encode = _events(api, "encode_response")
    is_decoding, count, left = False, 0, 0

    @functools.wraps(decode)
    def decode_request(*args: Any, **kwargs: Any) -> Any:
        nonlocal is_decoding
        if not is_decoding:
            before_decode()
        is_decoding = True
        return decode(*args, **kwargs)

    @functools.wraps(batch)
    def end_decoding(*args: Any, **kwargs: Any) -> Any:
        nonlocal is_decoding
        # Not where a batch that raised is computed again, one by one.
        if is_decoding:
            after_decode()
        is_decoding = False
        return batch(*args, **kwargs)

    @functools.wraps(unbatch)
    def count_outputs(*args: Any, **kwargs: Any) -> Any:
        nonlocal count, left
        outputs = list(unbatch(*args, **kwargs))
        count = left = sum(not isinstance(item, BaseException) for item in outputs)
        return outputs

    def counted(encode: Any) -> Any:
        @functools.wraps(encode)
        def encode_response(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == count:
                before_encode()
            left -= 1
            try:
                return encode(*args, **kwargs)
            finally:
                if left == 0:
                    after_encode()

        encode_response.around = counted  # type: ignore[attr-defined]
        return encode_response

    api.decode_request, api.batch = decode_request, end_decoding
    if not api.stream:
        api.unbatch, api.encode_response = count_outputs, counted(encode)
