"""The class that model authors write."""

from __future__ import annotations

from typing import Any

from litmux import _options


class LitAPI:
    """One model: subclass it, load in :meth:`setup`, compute in :meth:`predict`.

    A request passes ``decode_request`` → (``batch`` →) ``predict`` → (``unbatch`` →)
    ``encode_response``. A hook that names a ``context`` parameter gets the request's
    :class:`~litmux.Context` (``predict`` gets a list of them when it gets a batch).

    Args:
        max_batch_size: The most requests that one ``predict`` gets. Above 1, ``predict`` gets what
            ``batch`` made of the inputs and returns what ``unbatch`` can take apart. Default: 1.
        batch_timeout: Seconds that a batch may wait to fill, counted from the arrival of its
            first request. Default: 0, which takes what is there.
        api_path: The path of the endpoint. Default: ``/predict``.
        stream: Whether ``predict`` is a generator whose values are sent as they come.
            Default: False.

    Raises:
        ValueError: names every argument that is wrong and says what it may be.
    """

    max_batch_size = 1
    batch_timeout = 0.0
    api_path = "/predict"
    stream = False
    device: str | None = None

    def __init__(
        self,
        max_batch_size: int = 1,
        batch_timeout: float = 0.0,
        api_path: str = "/predict",
        stream: bool = False,
    ) -> None:
        options = {
            "max_batch_size": max_batch_size,
            "batch_timeout": batch_timeout,
            "path": api_path,
            "stream": stream,
        }
        mistakes = _options.mistakes("endpoint", options)
        if not mistakes and stream and max_batch_size > 1:
            mistakes = ["streams cannot be batched; set max_batch_size=1 or stream=False"]
        _options.raise_all([f"{type(self).__name__}: {mistake}" for mistake in mistakes])
        self.max_batch_size = max_batch_size
        self.batch_timeout = batch_timeout
        self.api_path = api_path
        self.stream = stream

    def setup(self, device: str) -> None:
        """Loads the model; called once in each worker, with ``cpu``, ``cuda:0``, ``mps`` …"""

    def decode_request(self, request: Any) -> Any:
        """Returns the input of ``predict``.

        ``request`` is the value of a JSON body; for a form a :class:`~litmux.Form`; for any other
        content type the body as ``bytes``.
        """
        return request

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
        """Computes the output of one input or batch; a generator where ``stream`` is set."""
        raise NotImplementedError(f"{type(self).__name__} must implement predict")

    def unbatch(self, output: Any) -> list[Any]:
        """Takes the output of a batch apart, one output for each input, in their order. An
        exception in an output's place answers that request alone."""
        return list(output)

    def encode_response(self, output: Any) -> Any:
        """Returns the answer: what JSON can hold, a pydantic model, ``bytes``, or a
        :class:`~litmux.Response`. Where ``stream`` is set it may be a generator function over the
        outputs, or a plain one for each."""
        return output

    def health(self) -> bool:
        """Returns whether the model can serve; asked in each worker once ``setup`` is done.

        A worker that is not healthy does not become ready."""
        return True

    def teardown(self) -> None:
        """Called in each worker before it exits."""
