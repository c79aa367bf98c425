"""The worker process from its order to its exit."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import signal
import sys
from typing import TYPE_CHECKING, Any

from litplex import _signals
from litplex._api import LitAPI, has_async_hooks
from litplex._launched import request_marks
from litplex._launched.order import read_order
from litplex._launched.sources import Sources
from litplex._launched.tracebacks import formatted, print_of, summary_of
from litplex._worker import _resources, current
from litplex._worker._link import Link, dial
from litplex._worker._load import load, why_not_loaded
from litplex._worker._serving import Serving, finish_background_tasks, hibernate, may_hibernate
from litplex._worker.calls.provider import Provider, install
from litplex._worker.control.registry import Registry
from litplex._worker.hooks.hooks import Hooks, check_hooks, source_of
from litplex._worker.wire import frames
from litplex._worker.wire.encode import name_source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

# Attributes of the model by the names of the options that set them.
_OVERRIDES = {
    "max_batch_size": "max_batch_size",
    "batch_timeout": "batch_timeout",
    "stream": "stream",
    "max_concurrency": "_chosen_concurrency",
}

_HOOKS_WITH_EVENTS = ("decode_request", "predict", "encode_response")

_STREAM_CREDIT = 1 << 20

_LARGE_BYTES = 16 << 20


def main() -> int:
    """Serves until the server says that it is enough. Returns the exit status."""
    _outlive_signals()
    try:
        order, pickled = read_order()
        _dump_stacks_on_request(order.get("stacks"))
        _mark_output(order)
        request_marks.structure()
        if order.get("log_level"):
            request_marks.log_from(order["log_level"])
        if "template" in order:
            from litplex._worker._template import become_worker

            if not become_worker(order, pickled):
                return 0
            # Here a forked worker begins. It has the output and the level of `logging` from above.
            _outlive_signals()
            order, pickled = read_order()
            _dump_stacks_on_request(order.get("stacks"))
            _mark_output(order)
        return _work(order, pickled)
    except frames.FrameError as error:
        print(f"this worker ends: the server broke the protocol: {error}", file=sys.stderr)
        return 1
    except ConnectionError:
        # The server has gone, or gave up this start: no reader is left. An error of this kind
        # in a hook does not come here; it is that hook's answer.
        return 0


def _outlive_signals() -> None:
    """Keeps signals from ending this process. Ctrl-C in a terminal is for the server, which then
    lets its workers finish. A service manager sends SIGTERM to every process; requests in flight
    must outlive it. By a handler, because programs that a model starts would inherit SIG_IGN."""
    for number in (signal.SIGINT, signal.SIGTERM):
        _signals.handle(number, lambda number, frame: None)


def _mark_output(order: dict[str, Any]) -> None:
    if order.get("mark"):
        request_marks.mark(order["mark"])


def _dump_stacks_on_request(path: str | None) -> None:
    """Appends the stacks of all threads to this file at each SIGQUIT, as the JVM does. The handler
    is C code, which runs while native code of the model holds the interpreter."""
    if path is not None:
        stacks = open(path, "ab", buffering=0)  # noqa: SIM115  (open as long as the process)
        faulthandler.register(signal.SIGQUIT, stacks, all_threads=True)


def _work(order: dict[str, Any], pickled: BinaryIO) -> int:
    link = Link(order)
    setup = link.wait_for_setup()
    if setup is None:
        return 0
    sources = Sources(keeps_texts=bool(setup.get("patches")))
    sources.follow()
    imports = _measured_imports() if setup.get("imports") else None
    # `setup` may ask for what makes calls, and is told that it comes later.
    registry, provider = _new_registry(order, setup)
    try:
        api = _set_up(order, setup, pickled)
        hooks = _hooks_of(api, setup)
        health = _health_of(api, hooks)
        ready = _ready(hooks, setup, sources.new(), imports)
    except _Failed as failed:
        link.data.sendall(frames.encode_message(frames.FAILED, failed.message))
        # The server ends this process, one way or the other, once it has read the reason.
        with contextlib.suppress(OSError):
            link.reader.receive()
        return 1
    # The C library then keeps freed memory up to this size (mallopt(3), M_MMAP_THRESHOLD); else the
    # strings of every large body are faulted in anew.
    bytes(_LARGE_BYTES)
    # The model's objects live as long as the process: let no collection walk them again.
    gc.collect()
    gc.freeze()
    serving = Serving(link, setup, api, hooks, health, registry, provider, sources)
    # A model that has never served is not torn down.
    serving.begin(ready)
    try:
        while serving.run():
            woken = hibernate(order, setup["device"])
            if woken is None:
                break
            registry, provider = _new_registry(order, setup)
            hooks = _hooks_of(api, setup)
            health = _health_of(api, hooks)
            serving = Serving(woken, setup, api, hooks, health, registry, provider, sources)
            # The server has forgotten the values of the worker that it had.
            if api._litplex_metrics is not None:
                api._litplex_metrics.renew()
            serving.begin(_ready(hooks, setup, sources.loaded(), None))
    finally:
        current.shared = None
        _tear_down(api)
        serving.end()
    return 0


def _new_registry(order: dict[str, Any], setup: dict[str, Any]) -> tuple[Registry, Provider]:
    """Returns the registry of the items that come through one link, and what makes their calls."""
    credit = setup.get("stream_credit", _STREAM_CREDIT)
    registry = Registry(credit)
    takes_calls, is_cancelled = bool(setup.get("calls")), registry.has_cancelled
    provider = Provider(lambda: dial(order, "calls"), takes_calls, credit, is_cancelled)
    install(provider)
    return registry, provider


def _settle(result: Any) -> Any:
    """Returns what a hook returned; one that is ``async`` runs on the event loop."""
    if not hasattr(result, "__await__"):
        return result
    from litplex._worker.hooks import event_loop

    return event_loop.run(result)


class _Failed(Exception):
    def __init__(self, reason: str, trace: str | None = None) -> None:
        super().__init__(reason)
        self.message = {"reason": reason}
        if trace is not None:
            self.message["traceback"] = trace


def _set_up(order: dict[str, Any], setup: dict[str, Any], pickled: BinaryIO) -> Any:
    source = order["load"]
    try:
        _resources.apply(order, setup["device"])
    except OSError as error:
        cores = order.get("cpu_affinity")
        raise _Failed(f"it cannot run on the cores {cores} (`cpu_affinity`): {error}") from None
    try:
        with pickled:
            api = load(source, pickled)
    except BaseException as error:  # noqa: BLE001  (whatever the user's module raises)
        raise _Failed(*why_not_loaded(error)) from None
    override(api, setup)
    _check(api, source, is_set_up=False)
    _start_loggers(api)
    try:
        api.device = setup["device"]
        _tell_callbacks(api, "setup")
        with _current_loop(api):
            _settle(api.setup(setup["device"]))
    except BaseException as error:  # noqa: BLE001
        raise _Failed(f"setup raised {summary_of(error)}", formatted(error)) from None
    # Again, because setup may have changed them.
    _check(api, source, is_set_up=True)
    _tell_callbacks(api, *_HOOKS_WITH_EVENTS)
    name_source(source_of(api))
    return api


def _hooks_of(api: Any, setup: dict[str, Any]) -> Hooks:
    """Returns the hooks of a model; only models with a spec import the modules of specs."""
    retry_singly = bool(setup.get("retry_batch_singly"))
    if api.spec is None:
        return Hooks(api, retry_singly)
    from litplex._worker.hooks.openai import KINDS

    return KINDS[api.spec.protocol](api, retry_singly)


def override(api: Any, setup: dict[str, Any]) -> None:
    """Sets what the configuration says instead of the model's author."""
    if isinstance(api, LitAPI):
        for name, attribute in _OVERRIDES.items():
            if setup.get(name) is not None:
                setattr(api, attribute, setup[name])


@contextlib.contextmanager
def _current_loop(api: Any) -> Iterator[Any]:
    """Makes the event loop that serves the current one, where hooks are ``async``: what a plain
    ``setup`` starts on it runs from when it serves. Not running, so that it may run others."""
    if not has_async_hooks(api):
        yield
        return
    import asyncio

    from litplex._worker.hooks import event_loop

    loop = event_loop.get()
    yield
    # `asyncio.run` in setup leaves none.
    asyncio.set_event_loop(loop)


def _measured_imports() -> Any:
    """Returns the imports that are measured from here on, if the server asks for them."""
    from litplex._worker._imports import Imports

    imports = Imports()
    imports.follow()
    return imports


def _ready(hooks: Hooks, setup: dict[str, Any], sources: Any, imports: Any) -> Any:
    """Returns the frame that says what the model is like."""
    try:
        info = {**hooks.model_info(), "sources": sources}
        if may_hibernate(setup):
            info["hibernates"] = True
        if imports is not None:
            info["imports"] = imports.end()
        return frames.encode_message(frames.READY, info)
    except (TypeError, ValueError) as error:
        raise _Failed(str(error)) from None


def _health_of(api: Any, hooks: Hooks) -> Any:
    """Returns the health of a model that has the hook; other workers do not import the module."""
    if getattr(api.health, "__func__", None) is LitAPI.health:
        return None
    from litplex._worker.control.health import Health

    return Health(api, runs_loop=hooks.is_async and not hooks.is_continuous)


def _start_loggers(api: Any) -> None:
    if api._litserve_loggers:
        from litplex._worker.control.loggers import LogQueue

        api._log_queue = LogQueue(api._litserve_loggers)


def _tell_callbacks(api: Any, *hooks: str) -> None:
    """Lets the model's callbacks follow hooks; what does so is not imported for others."""
    if api._litserve_callbacks:
        from litplex._worker.hooks.callbacks import follow

        follow(api, *hooks)


def _check(api: Any, source: Any, *, is_set_up: bool) -> None:
    try:
        check_hooks(api, source.get("guarded", False), is_set_up=is_set_up)
    except ValueError as error:
        raise _Failed(str(error)) from None


def _tear_down(api: Any) -> None:
    request_marks.set_current_requests(())
    finish_background_tasks()
    try:
        _settle(api.teardown())
    except BaseException as error:  # noqa: BLE001
        print_of(error)
    if api._log_queue is not None:
        api._log_queue.close()
    if "litplex._worker.hooks.event_loop" in sys.modules:
        from litplex._worker.hooks import event_loop

        event_loop.close()
