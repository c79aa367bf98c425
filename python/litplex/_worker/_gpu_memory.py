"""Keeps PyTorch and TensorFlow to the worker's share of the memory of its GPU.

Each is told when it is imported, so that models without it pay nothing. JAX reads a variable, which
the server sets, and ONNX Runtime is told by ``onnxruntime_options``.
"""

from __future__ import annotations

import sys
from typing import Any

from litplex import _resources
from litplex._worker._after_import import after_import


def limit() -> None:
    """Limits what is imported, and what will be."""
    after_import("torch", _tell_torch)
    after_import("tensorflow", _tell_tensorflow)


def _tell_torch(torch: Any) -> Any:
    index = _resources.cuda_index()
    if not torch.cuda.is_available():
        return _warn("PyTorch", "it sees no GPU")
    torch.cuda.set_per_process_memory_fraction(_resources.gpu_memory_fraction, index)


def _tell_tensorflow(tensorflow: Any) -> Any:
    config, index = tensorflow.config, _resources.cuda_index() or 0
    gpus = config.list_physical_devices("GPU")
    if index >= len(gpus):
        return _warn("TensorFlow", f"it sees {len(gpus)} GPUs")
    megabytes = _resources.gpu_memory_bytes() >> 20
    limited = config.LogicalDeviceConfiguration(memory_limit=megabytes)
    config.set_logical_device_configuration(gpus[index], [limited])


def _warn(whose: str, why: str) -> None:
    print(
        f"`gpu_memory_fraction` does not limit {whose} on {_resources.device}: {why}",
        file=sys.stderr,
    )
