"""Calls the hooks of a model, in their order and with their contexts."""

from __future__ import annotations

import functools
import inspect
import json
import math
import struct
from typing import TYPE_CHECKING, Any

from litplex import _hook_rules
from litplex._api import (
    ContinuousAPI,
    LitAPI,
    access_error,
    concurrency_error,
    has_async_hooks,
    is_async,
    is_generator,
    is_method_of,
    max_concurrency_of,
)
from litplex._calls.endpoint import declared_calls, declared_types
from litplex._launched import request_marks
from litplex._model.annotations import signature_of
from litplex._model.schema import describe, tool_of
from litplex._worker.hooks.outputs import WrongLength, as_list, iterated
from litplex._worker.hooks.typed import request_reader, response_encoder
from litplex._worker.wire import frames
from litplex._worker.wire.content import read_request
from litplex._worker.wire.encode import encode_body, encode_error, plain_error
from litplex._worker.wire.json import Unsendable, dumps, loads
from litplex._worker.wire.stages import end_stage, stages_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from litplex._http import Context
    from litplex._worker.hooks.base64_fields import Kind, Path
    from litplex._worker.wire.encode import Answer
    from litplex._worker.wire.frames import Payload
    from litplex._worker.wire.stages import Stages

# The flags of requests that are more than the value of JSON in their body.
_HAS_LEAD = frames.META | frames.REQUEST_ID | frames.VALUES
# Requests with these flags have a context, whether hooks want one or not.
_HAS_CONTEXT = frames.META | frames.VALUES

_COST = struct.Struct("<d")
# The default number of concurrent calls of `async` hooks.
_ASYNC_CONCURRENCY = 64


def check_hooks(api: Any, is_guarded: bool = False, *, is_set_up: bool = True) -> None:
    """Checks the settings of a model and its hooks; before its setup, as far as they are known.

    Raises:
        ValueError: has the first error.
    """
    if not isinstance(api, LitAPI):
        raise ValueError(
            f"`api` is a {type(api).__name__}, not a litplex.LitAPI; name a class that is one"
        )
    found = [concurrency_error(api), access_error(api, is_guarded)]
    _raise_first([*found, *_hook_rules.errors(api, is_set_up=is_set_up)])
    if _has_cost(api) and is_async(api.cost):
        raise ValueError("`cost` must be a plain function, not `async`")
    request_reader(api, None)
    response_encoder(api)
    if api.spec is not None:
        from litplex._spec_rules import errors

        _raise_first(errors(api))


def _raise_first(errors: Iterable[str | None]) -> None:
    error = next(filter(None, errors), None)
    if error is not None:
        raise ValueError(error)


def wants_context(hook: Any) -> bool:
    """Returns whether a hook names a ``context`` parameter."""
    return "context" in signature_of(hook).parameters


def source_of(api: Any) -> str:
    """Returns the name of the hook that returns the responses of a model, and its place."""
    has_own = not is_method_of(api.encode_response, LitAPI.encode_response)
    last = "encode_response" if has_own else "step" if isinstance(api, ContinuousAPI) else "predict"
    code = getattr(inspect.unwrap(getattr(api, last)), "__code__", None)
    where = f" ({code.co_filename}, line {code.co_firstlineno})" if code is not None else ""
    return f"`{type(api).__name__}.{last}`{where}"


class Hooks:
    """The hooks of one model, ready to be called with payloads of frames.

    Args:
        api: The model.
        retry_singly: Whether the items of a batch that raises are computed again one by one.
    """

    def __init__(self, api: Any, retry_singly: bool = False) -> None:
        self.is_continuous = isinstance(api, ContinuousAPI)
        self.is_async = has_async_hooks(api)
        self.retry_singly = retry_singly
        self.max_batch_size = 1 if self.is_continuous else api.max_batch_size
        self.stream = bool(api.stream)
        self.concurrency = concurrency_of(api)
        self.api = api
        #: Makes the response of an output.
        self.encode_body = _body_encoder(api)
        second = api.admit if self.is_continuous else api.predict
        hooks = (api.decode_request, second, response_encoder(api))
        hooks = tuple(map(_direct, hooks))
        batch_hooks = (api.batch, api.unbatch)
        wanting = hooks if self.max_batch_size == 1 else (*hooks, *batch_hooks)
        self.context = any(map(wants_context, wanting))
        # With concurrent requests, each of them needs its id.
        self._shares = self.max_batch_size > 1 or self.is_async or self.is_continuous
        #: decode, compute and encode where no hook gets a context.
        self.plain = hooks
        self.decode, self.compute, self.encode = map(_taking_context, hooks)
        self.batch, self.unbatch = map(_taking_context, batch_hooks)
        self.encodes_stream = not self.is_continuous and _encodes_whole_stream(api)
        self.unbatches_stream = is_generator(api.unbatch)
        #: Converts each value of a stream, if the model has its own `format_encoded_response`.
        self.format = _own_format(api) if self.stream else None
        if self.format is not None and api.spec is None:
            from litplex._worker.hooks.stream_format import converted

            self.encode = converted(
                self.encode, self.format, self.encodes_stream, self.max_batch_size > 1
            )
        #: Returns the input of ``decode_request`` and the context of one request, from the flags
        #: and payload of its frame. It is an attribute, so that requests of hooks without an
        #: annotation pass no branch.
        self.read = request_reader(api, self._read) or self._read
        #: Whether reading a request runs no code of the model's author.
        self.reads_json = self.read == self._read and type(self)._read is Hooks._read
        #: The fields that the server decodes from base64, by their paths.
        self.base64: dict[Path, Kind] = getattr(self.read, "base64_fields", {})
        if self.base64:
            from litplex._worker.hooks.base64_fields import accept

            accept(self.base64)

    def model_info(self) -> dict[str, Any]:
        """Returns the ``Ready`` message."""
        return {
            "max_batch_size": self.max_batch_size,
            "batch_timeout": self.api.batch_timeout,
            "stream": self.stream,
            "context": self.context,
            "concurrency": self.concurrency,
            # Sequences share a thread: a hook that waits for a call blocks every sequence.
            "places": 1 if self.is_continuous else self.concurrency,
            "cost": _has_cost(self.api),
            "schema": described(self.api),
            "tool": tool_of(self.api),
            "calls": declared_calls(self.api),
            "base64": list(self.base64),
        }

    def _read(self, flags: int, payload: Payload) -> Any:
        if not (flags & _HAS_LEAD or self.context):
            # Most requests take this path; every call on it reduces the throughput.
            return loads(payload), None
        request_id = None
        if flags & frames.REQUEST_ID:
            request_id, payload = frames.split_request_id(payload)
        if not (flags & _HAS_CONTEXT or self.context or self._shares):
            value = loads(payload)
            request_marks.set_current_request(request_id or "")
            return value, None
        value, context = read_request(flags, payload, request_id)
        request_marks.set_current_request(context._name)
        return value, context

    def answer(self, request: Any, context: Context | None) -> Any:
        """Computes one request; returns the status, flags and payload of its response."""
        if context is None:
            decode, compute, encode = self.plain
            return self.encode_body(encode(compute(decode(request))))
        if context._stages is not None:
            return self._answer_measured(request, context, context._stages)
        x = self.decode(request, context)
        return self.body_of(self.encode(self.compute(x, context), context), context)

    def body_of(self, output: Any, context: Context | None) -> Any:
        """Returns the status, flags and payload of the response that an output makes, or a
        coroutine that does, as :attr:`encode_body` does; buffers are kept for a caller that is a
        hook."""
        if context is not None and context._takes_values:
            from litplex._worker.wire.encode import encode_value

            return encode_value(output)
        return self.encode_body(output)

    def _answer_measured(self, request: Any, context: Context | None, stages: Stages) -> Answer:
        x = self.decode(request, context)
        stages.end()
        output = self.compute(x, context)
        stages.end()
        answer = self.body_of(self.encode(output, context), context)
        stages.end()
        return stages.added_to(answer)

    def answer_batch(self, inputs: list[Any], contexts: Sequence[Context | None]) -> list[Answer]:
        """Computes a batch; returns the status, flags and payload of a response for each.

        Raises:
            WrongLength: there is not one output for each input.
        """
        measured = stages_of(contexts)
        for stages in measured:
            stages.begin()
        output = self.compute(self.batch(inputs, contexts), contexts)
        outputs = as_list(self.unbatch(output, contexts), len(inputs))
        for stages in measured:
            stages.end()
        return list(map(self._encode_item, outputs, contexts))

    def _encode_item(self, output: Any, context: Context | None) -> Answer:
        try:
            if isinstance(output, BaseException):
                raise output
            if context is not None and context._stages is not None:
                return self._encode_measured(output, context, context._stages)
            answer: Answer = self.body_of(self.encode(output, context), context)
            return answer
        except BaseException as error:  # noqa: BLE001  (one item fails alone)
            return encode_error(error)

    def _encode_measured(self, output: Any, context: Context | None, stages: Stages) -> Answer:
        stages.begin()
        answer = self.body_of(self.encode(output, context), context)
        stages.end()
        return stages.added_to(answer)

    def may_retry(self, error: BaseException, count: int) -> bool:
        """Returns whether the items of a batch that raised this error are computed one by one."""
        return self.retry_singly and count > 1 and not isinstance(error, WrongLength)

    def outputs(self, request: Any, context: Context | None) -> Any:
        """Returns the generator of one stream, and the generator to close if it ends early."""
        x = self.decode(request, context)
        end_stage(context)
        outputs = iterated(self.compute(x, context))
        if self.encodes_stream:
            return iter(self.encode(outputs, context)), outputs
        return (self.encode(output, context) for output in outputs), outputs

    def steps(self, inputs: list[Any], contexts: Sequence[Context | None]) -> Any:
        """Returns the generator of a batch of streams, each of whose steps has an output for each
        stream, and the generator to close if it ends early."""
        source = iterated(self.compute(self.batch(inputs, contexts), contexts))
        if self.unbatches_stream:
            steps = self.unbatch(source, contexts)
        else:
            steps = (self.unbatch(output, contexts) for output in source)
        if self.encodes_stream:
            steps = self.encode(steps, contexts)
        return iter(steps), source

    def measure(self, flags: int, payload: Payload) -> tuple[int, bytes]:
        """Returns the status and payload with the cost of a request; it never raises."""
        try:
            return 200, _COST.pack(_checked_cost(self.api.cost(self.read(flags, payload)[0])))
        except frames.FrameError:
            raise
        except BaseException as error:  # noqa: BLE001  (sys.exit in a hook is its error too)
            return plain_error(error)


def described(api: Any) -> dict[str, Any]:
    """Returns what is known of a model's requests and responses, and of those of its calls.

    Raises:
        ValueError: an example is not JSON, or a type of a call is invalid.
    """
    types = declared_types(api)
    known = describe(api, _example_as_json)
    return {**known, "calls": types} if types else known


def _example_as_json(name: str, value: Any) -> Any:
    """Returns an example of a request or a response as JSON's own types.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(dumps(value, name))
    except Unsendable as error:
        raise ValueError(f"`{name}` cannot be sent as JSON: {error.fault}") from None


def concurrency_of(api: Any) -> int:
    """Returns the most batches, or single requests, that a worker computes at the same time."""
    if isinstance(api, ContinuousAPI):
        return api.max_batch_size
    chosen = max_concurrency_of(api)
    if chosen is not None:
        return chosen
    return _ASYNC_CONCURRENCY if has_async_hooks(api) and api.max_batch_size == 1 else 1


def _body_encoder(api: Any) -> Callable[[Any], Any]:
    if api._litplex_profile.sends_bytes_as_text:
        return functools.partial(encode_body, bytes_are_text=True)
    return encode_body


def _has_cost(api: Any) -> bool:
    if not (api._litplex_profile.has_model_options and callable(api.cost)):
        return False
    return getattr(api.cost, "__func__", None) is not LitAPI.cost


def _checked_cost(cost: Any) -> Any:
    if not hasattr(cost, "__float__"):
        raise TypeError(f"`cost` must return a number, not a {type(cost).__name__}")
    number = float(cost)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"`cost` must return a finite number of at least 0, not {number}")
    return number


def _direct(hook: Any) -> Any:
    """Returns the hook, or the identity for a default hook without a spec: a check of the spec for
    each request would reduce the throughput."""
    is_default = getattr(hook, "__func__", None) in (LitAPI.decode_request, LitAPI.encode_response)
    return _same if is_default and hook.__self__.spec is None else hook


def _same(value: Any) -> Any:
    return value


def _taking_context(hook: Any) -> Any:
    """Returns the hook as a function of a value and a context; the hook gets the context if it has
    that parameter."""
    if wants_context(hook):
        return lambda value, context: hook(value, context=context)
    return lambda value, _: hook(value)


def _own_format(api: Any) -> Any:
    method = api.format_encoded_response
    return None if is_method_of(method, LitAPI.format_encoded_response) else method


def _encodes_whole_stream(api: Any) -> Any:
    encode = api.encode_response
    return is_method_of(encode, LitAPI.encode_response) or is_generator(encode)
