"""Models for ``OpenAISpec``, which turns what they yield into chat completions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from litplex.compat import LitAPI

_USAGE = {"prompt_tokens": 25, "completion_tokens": 10, "total_tokens": 35}
_GREETING = (
    "Hi! It's nice to meet you. Is there something I can help you with or would you like to chat? "
)
_SUM = "10 + 6 is equal to 16."


def _message(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


class TestAPI(LitAPI):
    """Says the same whatever it is asked."""

    __test__ = False  # For pytest, which would collect it by its name.

    def setup(self, device: str) -> None:
        self.model = None

    def predict(self, x: Any) -> Iterator[Any]:
        yield "This is a generated output"


class TestAPIWithCustomEncode(TestAPI):
    """Answers with a message of its own."""

    def encode_response(self, output: Iterable[Any]) -> Iterator[Any]:
        for _ in output:
            yield _message("This is a custom encoded output")


class TestAPIWithToolCalls(TestAPI):
    """Answers with a tool call."""

    def encode_response(self, output: Iterable[Any]) -> Iterator[Any]:
        function = {"name": "function_1", "arguments": '{"arg_1": "arg_1_value"}'}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        for _ in output:
            yield _message("", tool_calls=[call])


class TestAPIWithStructuredOutput(TestAPI):
    """Answers with an event as JSON."""

    def encode_response(self, output: Iterable[Any]) -> Iterator[Any]:
        event = {"name": "Science Fair", "date": "Friday", "participants": ["Alice", "Bob"]}
        for _ in output:
            yield _message(json.dumps(event))


class OpenAIBatchContext(LitAPI):
    """Greets a batch word by word, and passes a temperature through the contexts."""

    def setup(self, device: str) -> None:
        self.model = None

    def batch(self, inputs: list[Any]) -> Any:
        return inputs

    def predict(self, inputs: Any, context: list[dict[str, Any]]) -> Iterator[list[str]]:  # type: ignore[override]
        for each in context:
            each["temperature"] = 1.0
        for word in _GREETING.split():
            yield [f"{word} "] * len(inputs)

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(  # type: ignore[override]
        self, output_stream: Iterable[Any], context: list[dict[str, Any]]
    ) -> Iterator[Any]:
        for outputs in output_stream:
            yield [_message(output) for output in outputs]
        for each in context:
            assert each["temperature"] == 1.0, f"context {each} is not 1.0"


class OpenAIWithUsage(LitAPI):
    """Answers at once, with the tokens that it counted."""

    def setup(self, device: str) -> None:
        self.model = None

    def predict(self, x: Any) -> Iterator[Any]:
        yield _message(_SUM, **_USAGE)


class OpenAIWithUsageEncodeResponse(LitAPI):
    """Answers token by token, and counts them at the end."""

    def setup(self, device: str) -> None:
        self.model = None

    def predict(self, x: Any) -> Iterator[Any]:
        yield from ("10", " +", " ", "6", " is", " equal", " to", " ", "16", ".")

    def encode_response(self, output: Iterable[Any]) -> Iterator[Any]:
        yield from map(_message, output)
        yield _message("", **_USAGE)


class OpenAIBatchingWithUsage(OpenAIWithUsage):
    """Answers a batch at once, and counts the tokens at the end."""

    def batch(self, inputs: list[Any]) -> Any:
        return inputs

    def predict(self, x: Any) -> Iterator[Any]:
        yield [_SUM] * len(x)

    def encode_response(  # type: ignore[override]
        self, output_stream_batch: Iterable[Any], context: list[dict[str, Any]]
    ) -> Iterator[Any]:
        for outputs in output_stream_batch:
            yield [_message(output) for output in outputs]
        yield [_message("", **_USAGE)] * len(context)

    def unbatch(self, output: Any) -> Any:
        return output
