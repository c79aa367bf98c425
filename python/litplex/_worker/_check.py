"""``python …/litplex/_worker --check``: reports the errors of a model, without its ``setup``.

It reads an order on standard input as a worker does, imports the model in the endpoint's own
interpreter, creates the instance, and checks its hooks. On the original standard output it prints
one object: ``error`` (None without an error), a ``traceback`` if the program's own code raised, and
the properties of the model.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from litplex import _spec_rules
from litplex._api import ContinuousAPI, LitAPI
from litplex._calls.endpoint import declared_calls
from litplex._launched.order import read_order
from litplex._worker import _resources
from litplex._worker._load import load, why_not_loaded
from litplex._worker._process import override
from litplex._worker.hooks.hooks import check_hooks, concurrency_of, described

if TYPE_CHECKING:
    from typing import BinaryIO


def main() -> int:
    """Prints the result. Returns the exit status, 0 also for a model with errors."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # The output of the program must not mix with the result.
    os.dup2(2, 1)
    json.dump(_look(*read_order()), out)
    out.close()
    return 0


def _look(order: dict[str, Any], pickled: BinaryIO) -> Any:
    try:
        _resources.apply(order, order["device"])
        with pickled:
            api = load(order["load"], pickled)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever the user's module raises)
        return _error(error)
    override(api, order["setup"])
    try:
        check_hooks(api, order["load"].get("guarded", False), is_set_up=False)
        schema = described(api)
    except ValueError as error:
        return {"error": str(error)}
    return _lack(api) or {"error": None, "schema": schema, **_traits(api)}


def _error(error: BaseException) -> Any:
    sentence, trace = why_not_loaded(error)
    # Without a frame of the program, the traceback only repeats the sentence.
    return {"error": sentence, "traceback": trace if trace and "\n" in trace else None}


def _lack(api: Any) -> Any:
    """Returns the error of a model that lacks a required hook."""
    needed = ("admit", "step") if isinstance(api, ContinuousAPI) else ("predict",)
    base = ContinuousAPI if isinstance(api, ContinuousAPI) else LitAPI
    for name in needed:
        if getattr(getattr(api, name), "__func__", None) is getattr(base, name):
            return {"error": f"{type(api).__name__} has no `{name}`; write it"}
    return None


def _traits(api: Any) -> Any:
    spec = _spec_rules.spec_of(api)
    return {
        "name": type(api).__name__,
        "max_batch_size": api.max_batch_size,
        "batch_timeout": api.batch_timeout,
        "stream": bool(api.stream),
        "spec": None if spec is None else spec.api_path,
        "tool": api.mcp is not None,
        "calls": declared_calls(api),
        "concurrency": 1 if isinstance(api, ContinuousAPI) else concurrency_of(api),
    }
