"""Keeps PyTorch and TensorFlow to the worker's share of the memory of its GPU.

Each is told when it is imported, so that models without it pay nothing. JAX reads a variable, which
the server sets, and ONNX Runtime is told by ``onnxruntime_options``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from litplex import _resources

if TYPE_CHECKING:
    from collections.abc import Callable


def limit() -> None:
    """Limits what is imported, and what will be."""
    for name, tell in (("torch", _tell_torch), ("tensorflow", _tell_tensorflow)):
        if name in sys.modules:
            tell(sys.modules[name])
        else:
            sys.meta_path.insert(0, _AfterImport(name, tell))


class _AfterImport:
    """A finder that finds nothing itself, and calls a function with a module once it is there."""

    def __init__(self, name: str, call: Callable[[Any], object]) -> None:
        self._name = name
        self._call = call

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self._name:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            # Who only asked where it is gets a loader, too, that may be used later.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._call(module)

        loader.exec_module = exec_module


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
