"""The classes that model authors subclass."""

from __future__ import annotations

import functools
import inspect
import json
import numbers
import warnings
from collections.abc import Sequence
from typing import Any

from litplex import _options
from litplex._heavy import WarnsOfHeavyInit
from litplex._mcp import MCP, mcp_error
from litplex._metrics import Counter, Gauge, Histogram, Metrics
from litplex._profile import NATIVE, Profile
from litplex._specs import LitSpec, spec_error

# The hooks that make the worker use an event loop if they are `async`.
_REQUEST_HOOKS = ("decode_request", "batch", "predict", "unbatch", "encode_response")


def unwrapped(hook: Any) -> Any:
    """Returns the function of a hook, without decorators, ``functools.partial`` and objects with
    ``__call__``."""
    while True:
        if isinstance(hook, functools.partial):
            hook = hook.func
        elif hasattr(hook, "__wrapped__"):
            hook = hook.__wrapped__
        elif not inspect.isroutine(hook) and _has_own_call(hook):
            hook = hook.__call__
        else:
            return hook


def _has_own_call(hook: Any) -> bool:
    return inspect.isfunction(inspect.getattr_static(type(hook), "__call__", None))


def is_async(hook: Any) -> bool:
    """Returns whether a hook is ``async def``, as a function or as a generator."""
    hook = unwrapped(hook)
    return inspect.iscoroutinefunction(hook) or inspect.isasyncgenfunction(hook)


def is_generator(hook: Any) -> bool:
    """Returns whether a hook is a generator function, plain or ``async``."""
    hook = unwrapped(hook)
    return inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook)


def is_method_of(hook: Any, function: Any) -> bool:
    """Returns whether a hook is this method: that of ``LitAPI``, unless a model overrides it."""
    return getattr(inspect.unwrap(hook), "__func__", None) is function


def has_async_hooks(api: LitAPI) -> bool:
    """Returns whether any hook that requests pass is ``async def``."""
    return any(is_async(getattr(api, name)) for name in _REQUEST_HOOKS)


def max_concurrency_of(api: LitAPI) -> int | None:
    """Returns the ``max_concurrency`` of a model: that of its server, or else its own if the
    attribute of that name is litplex's."""
    chosen = api._chosen_concurrency
    has_own = chosen is None and api._litplex_profile.has_model_options
    return api.max_concurrency if has_own else chosen


def concurrency_error(api: LitAPI) -> str | None:
    """Returns the error in the ``max_concurrency`` of a model; None if there is none."""
    value = max_concurrency_of(api)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return f"`max_concurrency` must be an integer of at least 1, or None, not {value!r}"
    if isinstance(api, ContinuousAPI):
        return (
            "`max_concurrency` is no option of a ContinuousAPI; set `max_batch_size`, the most "
            "sequences at once"
        )
    if value > 1 and not has_async_hooks(api):
        return f"`max_concurrency` of {value} needs async hooks; write `async def predict`"
    return None


def authorize_of(api: Any) -> Any:
    """Returns the ``authorize`` of a model, which decides about the callers of its endpoint; None
    if it has none."""
    return getattr(api, "authorize", None) if isinstance(api, LitAPI) else None


def access_error(api: LitAPI, is_guarded: bool) -> str | None:
    """Returns the error that would leave an endpoint open to more callers than its author intends;
    None if there is none.

    Args:
        api: The model.
        is_guarded: Whether the app host calls its ``authorize`` before each request.
    """
    authorize = authorize_of(api)
    if authorize is None:
        return None
    if not callable(authorize):
        return f"`authorize` must be a function, not {authorize!r}"
    if is_guarded:
        return None
    return (
        "`authorize` is not called for an API that is given by its name, and the endpoint would be "
        "open to every client; give LitServer an instance"
    )


def _argument_errors(
    max_batch_size: Any, batch_timeout: Any, api_path: Any, stream: Any
) -> list[str]:
    """Returns the errors in the arguments, in the words that LitServe's programs look for."""
    found: list[str] = []
    options = {"stream": stream}
    if isinstance(max_batch_size, int) and max_batch_size <= 0:
        found.append(f"max_batch_size must be greater than 0, not {max_batch_size}")
    else:
        options["max_batch_size"] = max_batch_size
    if isinstance(batch_timeout, (int, float)) and batch_timeout < 0:
        found.append(f"batch_timeout must be greater than or equal to 0, not {batch_timeout}")
    else:
        options["batch_timeout"] = batch_timeout
    if isinstance(api_path, str) and not api_path.startswith("/"):
        found.append(f"api_path must start with '/', as in '/predict', not {api_path!r}")
    else:
        options["path"] = api_path
    return [*found, *_options.errors("endpoint", options)]


def _warn_of_unordered(output: Any) -> None:
    kind = "string" if isinstance(output, str) else type(output).__name__
    warnings.warn(
        f"The 'predict' method returned a {kind} instead of a list of predictions. When batching "
        "is enabled, 'predict' must return a list to handle multiple inputs correctly.",
        UserWarning,
        stacklevel=3,
    )


def _unsupported(loop: Any) -> list[str]:
    found = []
    if loop not in (None, "auto"):
        found.append(
            "loop must be 'auto': litplex owns the queues that a loop would read; write `admit`, "
            "`step` and `finish` of a ContinuousAPI"
        )
    return found


class LitAPI(metaclass=WarnsOfHeavyInit):
    """A model: a subclass loads it in :meth:`setup` and computes in :meth:`predict`.

    A request passes ``decode_request`` → (``batch`` →) ``predict`` → (``unbatch`` →)
    ``encode_response``. A hook with a parameter ``context`` gets the :class:`~litplex.Context` of
    the request; ``batch``, ``unbatch`` and the ``predict`` of a batch get a list of them, in the
    order of the inputs. These hooks, ``setup``, ``health`` and ``teardown`` may be ``async def``;
    all run on one event loop.

    Args:
        max_batch_size: The most requests in one call of ``predict``. Above 1, ``predict`` gets the
            output of ``batch`` and returns an output that ``unbatch`` can split. Default: 1.
        batch_timeout: The seconds that a batch may wait to fill, from the arrival of its first
            request. Default: 0, which takes the requests that have arrived.
        api_path: The path of the endpoint. Default: ``/predict``.
        stream: Whether ``predict`` is a generator whose values are sent one by one.
            Default: False.
        loop: Only ``"auto"``; a model with its own loop is a :class:`ContinuousAPI`.
        spec: The dialect of the endpoint: an :class:`~litplex.OpenAISpec` or an
            :class:`~litplex.OpenAIEmbeddingSpec`. It sets ``stream``, and a path instead of
            ``/predict``. Default: None, plain requests.
        mcp: An :class:`~litplex.MCP`, which offers the model as a tool at ``/mcp``. Default: None,
            no tool.
        enable_async: Checks that ``predict`` is ``async``; ``async`` hooks do not need it.
            Default: False.
        max_concurrency: The most concurrent calls of ``predict`` in a worker; above 1 it needs
            ``async`` hooks. Default: None, which is 64 for single requests and streams of
            ``async`` hooks, and 1 for batches and plain hooks.

    Raises:
        ValueError: names every invalid argument and its valid values.
    """

    max_batch_size = 1
    batch_timeout = 0.0
    api_path = "/predict"
    stream = False
    max_concurrency: int | None = None
    _chosen_concurrency: int | None = None
    device: str | None = None
    #: The number of CPU threads that a worker should use; the server sets it.
    threads: int | None = None
    loop = "auto"
    mcp: MCP | None = None
    #: An example of a request, a value of JSON, in the OpenAPI document. If ``decode_request`` has
    #: no type, the schema of requests is derived from it. Default: None, no example.
    request_example: Any = None
    #: The response to that request, or one value of its stream. Default: None, no example.
    response_example: Any = None
    #: The seconds that a request may take; the server sets it.
    request_timeout: float | None = None
    _log_queue: Any = None
    _litplex_profile: Profile = NATIVE
    _litplex_metrics: Metrics | None = None
    _litserve_callbacks: Any = ()
    _litserve_loggers: Any = ()
    spec: LitSpec | None = None

    def __init__(
        self,
        max_batch_size: int = 1,
        batch_timeout: float = 0.0,
        api_path: str = "/predict",
        stream: bool = False,
        loop: Any = "auto",
        spec: LitSpec | None = None,
        mcp: MCP | None = None,
        enable_async: bool = False,
        *,
        max_concurrency: int | None = None,
    ) -> None:
        errors = _argument_errors(max_batch_size, batch_timeout, api_path, stream)
        self.max_concurrency = max_concurrency
        if not self._litplex_profile.has_model_options:
            # The attribute may be the program's own; the argument is litplex's.
            self._chosen_concurrency = max_concurrency
        errors += filter(None, [concurrency_error(self)])
        errors += _unsupported(loop)
        if spec is not None:
            errors += filter(None, [spec_error(spec)])
        if mcp is not None:
            errors += filter(None, [mcp_error(self, mcp)])
        if enable_async and not is_async(self.predict):
            errors.append(
                "Async validation failed: predict must be an async generator or async function "
                "when enable_async=True"
            )
        _options.raise_all([f"{type(self).__name__}: {error}" for error in errors])
        if max_batch_size == 1 and self._splits_batches():
            warnings.warn(
                f"{type(self).__name__} has both batch and unbatch methods implemented, but the "
                "max_batch_size parameter was not set. They are not called",
                stacklevel=2,
            )
        self.enable_async = enable_async
        self.mcp = mcp
        if mcp is not None:
            mcp.api = self
        self.max_batch_size = max_batch_size
        self.batch_timeout = batch_timeout
        self.api_path = api_path
        self.stream = stream
        self.pre_setup(spec)

    def pre_setup(self, spec: LitSpec | None = None) -> None:
        """Sets the spec of the model, as ``LitAPI(spec=…)`` does; for tests that call hooks without
        a server. None changes nothing.

        Raises:
            ValueError: litplex does not have this spec.
        """
        if spec is None:
            return
        _options.raise_all(list(filter(None, [spec_error(spec)])))
        self.spec = spec
        self.stream = spec.stream
        if self.api_path == LitAPI.api_path:
            self.api_path = spec.api_path

    def _splits_batches(self) -> bool:
        kind = type(self)
        return kind.batch is not LitAPI.batch and kind.unbatch is not LitAPI.unbatch

    def setup(self, device: str) -> None:
        """Loads the model. Each worker calls it once, with its device: ``cpu``, ``cuda:0``, ``mps``
        …"""

    def decode_request(self, request: Any) -> Any:
        """Returns the input of ``predict``. Default: the request, unchanged.

        ``request`` is the value of a JSON body; for a form a :class:`~litplex.Form`; for any other
        content type the body as ``bytes``. With the annotation of a pydantic model, or of any other
        type that pydantic validates, it is of that type; with :class:`~litplex.UploadFile`, it is
        the file of that name in a form. Requests that do not conform get 422. With a ``spec``, its
        docstring has the type.
        """
        return request if self.spec is None else self.spec.decode_request(request)

    def batch(self, inputs: list[Any]) -> Any:
        """Returns one input for a list of 1 to ``max_batch_size`` inputs. Default: tensors or
        arrays of one shape are stacked along a new first dimension; other inputs stay a list."""
        first = inputs[0]
        package = type(first).__module__.partition(".")[0]
        if package in ("torch", "numpy") and hasattr(first, "shape"):
            import importlib

            return importlib.import_module(package).stack(inputs)
        return inputs

    def predict(self, x: Any) -> Any:
        """Returns the output of one input or batch. With ``stream`` it is a generator; for a batch,
        it yields at every step an output that ``unbatch`` can split.

        Raises:
            NotImplementedError: the model has no ``predict``.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement predict")

    def unbatch(self, output: Any) -> list[Any]:
        """Returns a list of one output for each input of a batch, in their order. Default: the
        output as a list.

        An exception in place of an output is the response to that request alone. With ``stream``,
        ``unbatch`` is called at every step, or once with all steps if it is a generator function;
        :data:`~litplex.FINISHED` in place of an output ends the stream of that request.

        Raises:
            ValueError: the output cannot be split (only the default).
        """
        if isinstance(output, (str, dict, set)):
            _warn_of_unordered(output)
        elif not hasattr(output, "__iter__") and not hasattr(output, "__getitem__"):
            raise ValueError(
                "Default implementation for `LitAPI.unbatch` method was not found. A "
                f"{type(output).__name__} cannot be split; return a list from predict, or write "
                "`unbatch`"
            )
        return list(output)

    def encode_response(self, output: Any) -> Any:
        """Returns the response: a value that JSON can hold, a pydantic model, ``bytes``, or a
        :class:`~litplex.Response`. Default: the output, unchanged.

        If its return annotation is a pydantic model, the returned value is validated and sent as
        that model. With ``stream`` it may be a generator function over the outputs, or a plain
        function of each output. With a ``spec``, its docstring has the type."""
        return output if self.spec is None else self.spec.encode_response(output)

    def format_encoded_response(self, data: Any) -> Any:
        """Returns the text or bytes to send for ``data``, a value of ``encode_response`` for a
        stream. Default: a line of JSON for a ``dict`` or a pydantic model, and other values
        unchanged. The worker calls it only if the model overrides it; a result that is neither
        ``str`` nor ``bytes`` is sent as a line of JSON."""
        if isinstance(data, dict):
            return json.dumps(data) + "\n"
        return data.model_dump_json() + "\n" if hasattr(data, "model_dump_json") else data

    def call(self, name: str, x: Any, *, timeout: float | None = None) -> Any:
        """Calls another endpoint of the server, whose name is known only now, and returns its
        result. A handle, :func:`litplex.endpoint`, says at the start that there is such an
        endpoint, and has more forms of calls.

        Args:
            name: The path of the endpoint, or its name.
            x: The input.
            timeout: The most seconds that the call may take. Default: None, the rest of the time
                budget of the request.

        Raises:
            CallError: the call failed.
            ValueError: ``x`` cannot be sent, or the name or the timeout is invalid.
            RuntimeError: no call can be made here, or this thread runs an event loop.
        """
        from litplex._calls.endpoint import named
        from litplex._calls.transport import refuse_on_loop

        refuse_on_loop("self.call(name, x)", "await self.acall(name, x)")
        return named(name, timeout)(x)

    async def acall(self, name: str, x: Any, *, timeout: float | None = None) -> Any:
        """Calls another endpoint as :meth:`call` does, for ``async`` hooks."""
        from litplex._calls.endpoint import named

        return await named(name, timeout).acall(x)

    def log(self, key: str, value: Any) -> None:
        """Logs a value under a name.

        A number appears on ``/metrics``, as ``litplex_user_<key>_sum`` and ``…_count`` over all
        workers. The ``loggers`` of the server process values of every type, in this worker, on a
        thread of their own. Without loggers, any other value is lost, with a warning.
        """
        unmeasured = self._measure(key, value)
        if self._log_queue is not None:
            self._log_queue.put(key, value)
        elif unmeasured:
            warnings.warn(
                f"a log of `{key}` was attempted without a configured logger; give LitServer "
                f"`loggers` ({unmeasured})",
                stacklevel=2,
            )

    def _measure(self, key: str, value: Any) -> str:
        """Adds a logged value to a metric; returns why it cannot, or an empty text."""
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return "without one, only numbers are measured"
        try:
            self._own_metrics().observe(key, float(value))
        except ValueError as error:
            return str(error)
        return ""

    def _own_metrics(self) -> Metrics:
        if self._litplex_metrics is None:
            self._litplex_metrics = Metrics()
        return self._litplex_metrics

    def counter(self, name: str, help: str = "Counted by the model.") -> Counter:
        """Returns the counter of this name, which appears as ``litplex_user_<name>_total``, summed
        over all workers. Create it in ``setup`` and call its ``add`` in hooks.

        Args:
            name: Letters, digits and ``_``, at most 64; with its unit: ``prompt_tokens``.
            help: A sentence for readers of ``/metrics``.

        Raises:
            ValueError: the name is invalid, or a metric of another kind has it.
        """
        return self._own_metrics().counter(name, help)

    def gauge(self, name: str, help: str = "Set by the model.") -> Gauge:
        """Returns the gauge of this name, which appears as ``litplex_user_<name>``, one value for
        each worker. Create it in ``setup`` and call its ``set`` in hooks.

        Args:
            name: As of :meth:`counter`.
            help: As of :meth:`counter`.

        Raises:
            ValueError: the name is invalid, or a metric of another kind has it.
        """
        return self._own_metrics().gauge(name, help)

    def histogram(
        self,
        name: str,
        help: str = "Observed by the model.",
        buckets: Sequence[float] | None = None,
    ) -> Histogram:
        """Returns the histogram of this name, which appears as ``litplex_user_<name>`` over all
        workers. Create it in ``setup`` and call its ``observe`` in hooks.

        Args:
            name: As of :meth:`counter`.
            help: As of :meth:`counter`.
            buckets: The upper bounds of the buckets, in ascending order. Default: 15 bounds from
                0.001 to 60, for seconds.

        Raises:
            ValueError: the name is invalid, a metric of another kind or with other buckets has it,
                or the bounds are not finite and ascending.
        """
        return self._own_metrics().histogram(name, help, buckets)

    def cost(self, request: Any) -> float:
        """Returns the cost of a request, at least 0, in a unit of the model's choice: tokens,
        pixels … Default: 1.

        Optional. ``request`` is the argument of ``decode_request``. The worker calls this before
        the request is queued, on a thread of its own, while the model may be computing. It must be
        fast, and must not use state that ``predict`` changes.
        """
        return 1.0

    def health(self) -> bool:
        """Returns whether the model is healthy. Default: True.

        Each worker calls it after ``setup`` and then about every second, on a thread of its own
        while the model computes. It may be ``async``. If it is false or raises, the server's
        ``/health`` responds with 503; requests are still served."""
        return True

    def teardown(self) -> None:
        """Releases resources; each worker calls it before it exits."""


class Finished:
    """The type of :data:`FINISHED`."""

    def __repr__(self) -> str:
        return "litplex.FINISHED"


#: In place of an output, it ends the stream or sequence of that request.
FINISHED = Finished()


class Last:
    """Marks an output of ``step`` as the last one of its sequence.

    Args:
        output: The output.
    """

    def __init__(self, output: Any) -> None:
        self.output = output


class ContinuousAPI(LitAPI):
    """A model with continuous batching: requests join and leave between its steps.

    A request passes ``decode_request`` → ``admit`` → ``step``, repeatedly → ``finish``. With
    ``stream``, ``encode_response`` of each output is sent at once. Without it, the response is
    ``encode_response`` of the list of outputs. All hooks are plain functions.

    Args:
        max_batch_size: The most sequences at the same time. Default: 1.
        api_path: The path of the endpoint. Default: ``/predict``.
        stream: Whether each output is sent at once. Default: False.
    """

    def admit(self, x: Any, context: Any) -> Any:
        """Returns the sequence of a request that joins, an object of any type. An exception is the
        response to that request alone, without a call of ``finish``."""
        raise NotImplementedError(f"{type(self).__name__} must implement admit")

    def step(self, sequences: list[Any]) -> Sequence[Any]:
        """Advances the sequences by one step, and returns an entry for each, in their order.

        An entry is an output; ``None`` for no output in this step; :data:`FINISHED`;
        :class:`Last` with the last output; or an exception, which fails that sequence alone. A
        sequence whose client reads too slowly is left out until the client has read. An exception
        of ``step`` fails all its sequences; later sequences are served.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement step")

    def finish(self, sequence: Any, reason: str) -> None:
        """Releases a sequence; called exactly once for each sequence of ``admit``.

        ``reason`` is ``"finished"``, ``"cancelled"`` (the client left or the deadline passed) or
        ``"error"``.
        """
