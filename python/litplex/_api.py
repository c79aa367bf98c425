"""The class that model authors write."""

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

# The hooks that make the worker compute on an event loop where they are `async`.
_COMPUTING = ("decode_request", "batch", "predict", "unbatch", "encode_response")


def unwrapped(hook: Any) -> Any:
    """Returns the function that a hook calls: what a decorator, a ``functools.partial`` or an
    object with ``__call__`` is around."""
    while True:
        if isinstance(hook, functools.partial):
            hook = hook.func
        elif hasattr(hook, "__wrapped__"):
            hook = hook.__wrapped__
        elif not inspect.isroutine(hook) and _has_own_call(hook):
            hook = hook.__call__
        else:
            return hook


def _has_own_call(hook):
    return inspect.isfunction(inspect.getattr_static(type(hook), "__call__", None))


def is_async(hook: Any) -> bool:
    """Tells whether a hook is ``async def``, as a function or as a generator."""
    hook = unwrapped(hook)
    return inspect.iscoroutinefunction(hook) or inspect.isasyncgenfunction(hook)


def is_generator(hook: Any) -> bool:
    """Tells whether a hook is a generator function, plain or ``async``."""
    hook = unwrapped(hook)
    return inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook)


def is_method_of(hook: Any, function: Any) -> bool:
    """Tells whether a hook is this very method: of ``LitAPI``, where nobody has overridden it."""
    return getattr(inspect.unwrap(hook), "__func__", None) is function


def has_async_hooks(api: LitAPI) -> bool:
    """Tells whether any hook that requests pass is ``async def``."""
    return any(is_async(getattr(api, name)) for name in _COMPUTING)


def max_concurrency_of(api: LitAPI) -> int | None:
    """Returns the ``max_concurrency`` of a model: that of its server, else its own where the
    attribute of that name is litplex's."""
    chosen = api._chosen_concurrency
    has_own = chosen is None and api._litplex_profile.has_model_options
    return api.max_concurrency if has_own else chosen


def concurrency_error(api: LitAPI) -> str | None:
    """Returns what is wrong with the ``max_concurrency`` of a model, if anything."""
    value = max_concurrency_of(api)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return f"`max_concurrency` must be an integer of at least 1, or None, not {value!r}"
    if isinstance(api, ContinuousAPI):
        return (
            "`max_concurrency` has no meaning here; `max_batch_size` is the most sequences at once"
        )
    if value > 1 and not has_async_hooks(api):
        return f"`max_concurrency` of {value} needs async hooks; write `async def predict`"
    return None


def authorize_of(api: Any) -> Any:
    """Returns what decides who may call an endpoint, where its author says so."""
    return getattr(api, "authorize", None) if isinstance(api, LitAPI) else None


def access_error(api: LitAPI, is_guarded: bool) -> str | None:
    """Returns what would leave an endpoint open to more people than its author thinks.

    Args:
        api: The model.
        is_guarded: Whether its ``authorize`` is asked before its requests come here.
    """
    authorize = authorize_of(api)
    if authorize is None:
        return None
    if not callable(authorize):
        return f"`authorize` must be a function, not {authorize!r}"
    if is_guarded:
        return None
    return (
        "`authorize` is not asked where an API is given by its name, and the endpoint would be "
        "open to everybody; give LitServer an instance"
    )


def _argument_errors(max_batch_size: Any, batch_timeout: Any, api_path: Any, stream: Any):
    """Says what programs written for LitServe look for, where they do."""
    found, options = [], {"stream": stream}
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
            "loop must be 'auto': litplex owns the queues that a loop would read; write what one "
            "step does as `admit`, `step` and `finish` of a ContinuousAPI"
        )
    return found


class LitAPI(metaclass=WarnsOfHeavyInit):
    """One model: subclass it, load in :meth:`setup`, compute in :meth:`predict`.

    A request passes ``decode_request`` → (``batch`` →) ``predict`` → (``unbatch`` →)
    ``encode_response``. A hook that names a ``context`` parameter gets the request's
    :class:`~litplex.Context`; ``batch``, ``unbatch`` and the ``predict`` of a batch get a list of
    them. Those hooks, ``setup``, ``health`` and ``teardown`` may be ``async def``; all run on one
    event loop.

    Args:
        max_batch_size: The most requests that one ``predict`` gets. Above 1, ``predict`` gets what
            ``batch`` made of the inputs and returns what ``unbatch`` can take apart. Default: 1.
        batch_timeout: Seconds that a batch may wait to fill, counted from the arrival of its
            first request. Default: 0, which takes what is there.
        api_path: The path of the endpoint. Default: ``/predict``.
        stream: Whether ``predict`` is a generator whose values are sent as they come.
            Default: False.
        loop: Only ``"auto"``; :class:`ContinuousAPI` is for a loop of one's own.
        spec: A protocol to speak instead of plain requests: an :class:`~litplex.OpenAISpec` or an
            :class:`~litplex.OpenAIEmbeddingSpec`. It decides ``stream``, and has a path of its own
            in place of ``/predict``. Default: None.
        mcp: Offers the model as a tool at ``/mcp``, as a :class:`~litplex.MCP` says. Default: it
            is none.
        enable_async: Says that ``predict`` is ``async``; hooks that are need no such word.
            Default: False.
        max_concurrency: The most calls of ``predict`` that are under way at once in a worker;
            above 1 it needs ``async`` hooks. Default: None, which is 64 for single requests and
            streams of ``async`` hooks, and 1 for batches and plain hooks.

    Raises:
        ValueError: names every argument that is wrong and says what it may be.
    """

    max_batch_size = 1
    batch_timeout = 0.0
    api_path = "/predict"
    stream = False
    max_concurrency: int | None = None
    _chosen_concurrency: int | None = None
    device: str | None = None
    #: CPU threads that a worker should use; set by the server.
    threads: int | None = None
    loop = "auto"
    mcp: MCP | None = None
    #: A request, as JSON, that the OpenAPI document shows; where ``decode_request`` has no type, it
    #: also says what requests are like. Default: None, for none.
    request_example: Any = None
    #: The answer to it, or one value of a stream; likewise.
    response_example: Any = None
    #: Seconds that a request may take; set by the server.
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
            # The program may use the attribute for itself; the argument is litplex's.
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
        if max_batch_size == 1 and self._takes_batches_apart():
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
        """Gives the model a spec, as ``LitAPI(spec=…)`` does; for tests that call hooks without a
        server. None changes nothing.

        Raises:
            ValueError: it is no spec that litplex speaks.
        """
        if spec is None:
            return
        _options.raise_all(list(filter(None, [spec_error(spec)])))
        self.spec = spec
        self.stream = spec.stream
        if self.api_path == LitAPI.api_path:
            self.api_path = spec.api_path

    def _takes_batches_apart(self) -> bool:
        kind = type(self)
        return kind.batch is not LitAPI.batch and kind.unbatch is not LitAPI.unbatch

    def setup(self, device: str) -> None:
        """Loads the model; called once in each worker, with ``cpu``, ``cuda:0``, ``mps`` …"""

    def decode_request(self, request: Any) -> Any:
        """Returns the input of ``predict``.

        ``request`` is the value of a JSON body; for a form a :class:`~litplex.Form`; for any other
        content type the body as ``bytes``. Annotate it with a pydantic model, or with what else
        pydantic can validate, to get that; with :class:`~litplex.UploadFile` to get the file of
        that name in a form. What is not so is answered 422. With a ``spec``, it is what that says.
        """
        return request if self.spec is None else self.spec.decode_request(request)

    def batch(self, inputs: list[Any]) -> Any:
        """Makes one input of a list of 1 to ``max_batch_size``: stacked when they are all
        tensors or arrays of one shape, and otherwise the list."""
        first = inputs[0]
        package = type(first).__module__.partition(".")[0]
        if package in ("torch", "numpy") and hasattr(first, "shape"):
            import importlib

            return importlib.import_module(package).stack(inputs)
        return inputs

    def predict(self, x: Any) -> Any:
        """Computes the output of one input or batch; a generator where ``stream`` is set, which
        for a batch yields at every step what ``unbatch`` can take apart."""
        raise NotImplementedError(f"{type(self).__name__} must implement predict")

    def unbatch(self, output: Any) -> list[Any]:
        """Takes the output of a batch apart, one output for each input, in their order. An
        exception in an output's place answers that request alone. Where ``stream`` is set, it is
        called at every step, or once with all steps where it is a generator function; an output
        that is :data:`~litplex.FINISHED` ends that request's stream.

        Raises:
            ValueError: by itself, where the output cannot be taken apart.
        """
        if isinstance(output, (str, dict, set)):
            _warn_of_unordered(output)
        elif not hasattr(output, "__iter__") and not hasattr(output, "__getitem__"):
            raise ValueError(
                "Default implementation for `LitAPI.unbatch` method was not found. A "
                f"{type(output).__name__} cannot be taken apart; return a list from predict, or "
                "write `unbatch`"
            )
        return list(output)

    def encode_response(self, output: Any) -> Any:
        """Returns the answer: what JSON can hold, a pydantic model, ``bytes``, or a
        :class:`~litplex.Response`. Where it is annotated to return a pydantic model, what it
        returns is validated and sent as that model. Where ``stream`` is set it may be a generator
        function over the outputs, or a plain one for each. With a ``spec``, what that says."""
        return output if self.spec is None else self.spec.encode_response(output)

    def format_encoded_response(self, data: Any) -> Any:
        """Returns what is sent of ``data``, a value that ``encode_response`` gave for a stream: a
        ``str`` or ``bytes`` goes out as it is, anything else as a line of JSON. It is called only
        where it is overridden; by itself it makes a ``dict`` or a pydantic model its line."""
        if isinstance(data, dict):
            return json.dumps(data) + "\n"
        return data.model_dump_json() + "\n" if hasattr(data, "model_dump_json") else data

    def log(self, key: str, value: Any) -> None:
        """Notes a value under a name.

        A number appears on ``/metrics``, as ``litplex_user_<key>_sum`` and ``…_count`` over all
        workers. Whatever it is, the ``loggers`` of the server process it in this worker, on a
        thread of their own.
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
        """Measures what is logged; returns why it cannot, where that is so."""
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            return "only numbers are measured without one"
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
        over all workers. Make it in ``setup`` and call its ``add`` in hooks.

        Raises:
            ValueError: the name cannot be one of a metric, or is one of another kind.
        """
        return self._own_metrics().counter(name, help)

    def gauge(self, name: str, help: str = "Set by the model.") -> Gauge:
        """Returns the gauge of this name, which appears as ``litplex_user_<name>``, for each worker
        by itself. Make it in ``setup`` and call its ``set`` in hooks.

        Raises:
            ValueError: the name cannot be one of a metric, or is one of another kind.
        """
        return self._own_metrics().gauge(name, help)

    def histogram(
        self,
        name: str,
        help: str = "Observed by the model.",
        buckets: Sequence[float] | None = None,
    ) -> Histogram:
        """Returns the histogram of this name, which appears as ``litplex_user_<name>`` over all
        workers. Make it in ``setup`` and call its ``observe`` in hooks.

        Args:
            name: Letters, digits and ``_``, at most 64; with its unit: ``prompt_tokens``.
            help: A sentence for those who read ``/metrics``.
            buckets: The upper bounds of the buckets, in order. Default: seconds from 0.001 to 60.

        Raises:
            ValueError: the name cannot be one of a metric, or is one of another kind.
        """
        return self._own_metrics().histogram(name, help, buckets)

    def cost(self, request: Any) -> float:
        """Returns what a request costs, in a unit of your own: tokens, pixels …; at least 0.

        Optional. ``request`` is what ``decode_request`` gets. It is called before the request is
        queued, on a thread of its own while the model may be computing, so let it be quick and
        touch nothing that ``predict`` changes.
        """
        return 1.0

    def health(self) -> bool:
        """Returns whether the model is well; asked in each worker after ``setup`` and then about
        every second, on a thread of its own while the model computes. It may be ``async``.

        Where it is false, or raises, the server's ``/health`` answers 503. Requests are served."""
        return True

    def teardown(self) -> None:
        """Called in each worker before it exits."""


class Finished:
    """The type of :data:`FINISHED`."""

    def __repr__(self) -> str:
        return "litplex.FINISHED"


#: In an output's place, it ends the stream or sequence of that request.
FINISHED = Finished()


class Last:
    """In an output's place, from ``step``: this output is the last of its sequence."""

    def __init__(self, output: Any) -> None:
        self.output = output


class ContinuousAPI(LitAPI):
    """A model that requests join and leave between its steps.

    A request passes ``decode_request`` → ``admit`` → ``step``, again and again → ``finish``. With
    ``stream`` each output is sent as it comes, through ``encode_response``; without, the answer is
    ``encode_response`` of the list of outputs. All hooks are plain functions.

    Args:
        max_batch_size: The most sequences at once. Default: 1.
        api_path: The path of the endpoint. Default: ``/predict``.
        stream: Whether outputs are sent as they come. Default: False.
    """

    def admit(self, x: Any, context: Any) -> Any:
        """Returns the sequence, any object of yours, of a request that joins. Raising answers
        that request alone; ``finish`` is not called then."""
        raise NotImplementedError(f"{type(self).__name__} must implement admit")

    def step(self, sequences: list[Any]) -> Sequence[Any]:
        """Advances the sequences by one step, and returns an entry for each, in their order.

        An entry is an output; ``None`` for none in this step; :data:`FINISHED`;
        :class:`Last` with a last output; or an exception, which fails that sequence alone. A
        sequence whose client reads too slowly is left out until it has read. Raising fails all
        sequences, and those that join later are served.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement step")

    def finish(self, sequence: Any, reason: str) -> None:
        """Lets go of a sequence; called exactly once for each that ``admit`` returned.

        ``reason`` is ``"finished"``, ``"cancelled"`` (its client left or its time is over) or
        ``"error"``.
        """
