"""Outputs of hooks: the items of a stream, the outputs of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litplex._api import FINISHED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litplex._http import Context


class WrongLength(ValueError):
    """A batch whose outputs cannot be assigned to its inputs.

    Attributes:
        client_detail: The text for clients, without the remedy, which is for the author.
    """

    client_detail = "Batch size mismatch"

    def __init__(self, expected: int, got: int, rule: str) -> None:
        super().__init__(f"{rule}: expected {expected}, got {got}")


def iterated(outputs: Any) -> Iterator[Any]:
    """Returns an iterator over the outputs of a stream, also of an ``async`` generator.

    Raises:
        TypeError: the outputs are a single value.
    """
    if hasattr(outputs, "__aiter__"):
        from litplex._worker.hooks import event_loop

        return event_loop.each(outputs)
    return iter(checked_stream(outputs))


def checked_stream(outputs: Any) -> Any:
    """Returns the outputs of a stream.

    Raises:
        TypeError: the outputs are a single value, whose keys or letters a loop would send.
    """
    is_value = isinstance(outputs, (dict, str, bytes, bytearray))
    if is_value or not (hasattr(outputs, "__iter__") or hasattr(outputs, "__aiter__")):
        raise TypeError(
            f"`predict` returned a {type(outputs).__name__}, and with stream=True it must yield "
            "values; write `yield`, or leave out stream"
        )
    return outputs


def as_list(
    outputs: Any, count: int, rule: str = "predict and unbatch must give one output for each input"
) -> list[Any]:
    """Returns the outputs of a batch as a list.

    Raises:
        WrongLength: the list does not have ``count`` outputs.
    """
    listed: list[Any] = outputs if isinstance(outputs, list) else list(outputs)
    if len(listed) != count:
        raise WrongLength(count, len(listed), rule)
    return listed


def encoded(encode: Any, output: Any, context: Context | None) -> Any:
    """Returns the encoded output, or the exception of its encoding."""
    if encode is None or output is FINISHED or isinstance(output, BaseException):
        return output
    try:
        return encode(output, context)
    except BaseException as error:  # noqa: BLE001  (one item fails alone)
        return error


def close(*generators: Any) -> None:
    """Closes generators, so that their ``finally`` runs, whether they have ended or not."""
    for generator in generators:
        if hasattr(generator, "close"):
            generator.close()


async def aclose(*generators: Any) -> None:
    """Closes generators as :func:`close` does, plain and ``async`` ones."""
    for generator in generators:
        if hasattr(generator, "aclose"):
            await generator.aclose()
        else:
            close(generator)
