"""Applies what the server grants a worker, before the user's code runs."""

from __future__ import annotations

import os
import sys
from typing import Any

from litplex import _resources
from litplex._api import LitAPI


def apply(order: dict[str, Any], device: Any) -> None:
    """Applies what an order says, to this thread and those that it starts.

    Raises:
        OSError: the system refuses the cores.
    """
    cores = order.get("cpu_affinity")
    if cores:
        os.sched_setaffinity(0, cores)
    sys.path[:0] = order.get("pythonpath") or ()
    _resources.device = device
    _resources.threads = order.get("threads")
    _resources.gpu_memory_fraction = order.get("gpu_memory_fraction")
    # On the class, where an attribute of the model's own comes before it.
    LitAPI.threads = _resources.threads
    if order.get("shared_cores"):
        from litplex._worker import _llama_cpp, _onnxruntime

        _onnxruntime.keep_from_spinning(order["shared_cores"])
        _llama_cpp.lend_idle_cores(order["shared_cores"], order["threads"])
    if _resources.gpu_memory_fraction is not None and _resources.cuda_index() is not None:
        from litplex._worker import _gpu_memory

        _gpu_memory.limit()
