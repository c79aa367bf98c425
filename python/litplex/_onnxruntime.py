"""Options of ONNX Runtime, which reads no environment variable for threads and no memory limit.

Where workers share cores, ``_worker/_onnxruntime.py`` keeps the threads of all sessions from
spinning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from litplex import _resources


def onnxruntime_options() -> dict[str, Any]:
    """Returns keyword arguments of ``onnxruntime.InferenceSession`` with the limits of the
    worker::

        def setup(self, device):
            options = ls.onnxruntime_options()
            self.session = onnxruntime.InferenceSession("model.onnx", **options)

    ``sess_options`` is a ``SessionOptions`` with the worker's number of threads; the model may set
    more in it. ``providers`` names the worker's device: on CUDA its index, with the bytes of
    ``gpu_memory_fraction`` as ``gpu_mem_limit``, and then the CPU for the operators that CUDA
    lacks. Outside a worker: ONNX Runtime's own number of threads, and the CPU.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if _resources.threads is not None:
        options.intra_op_num_threads = _resources.threads
        options.inter_op_num_threads = 1
    return {"sess_options": options, "providers": [*_cuda(), "CPUExecutionProvider"]}


def _cuda() -> Iterator[tuple[str, dict[str, int]]]:
    index = _resources.cuda_index()
    if index is None:
        return
    options = {"device_id": index}
    if _resources.gpu_memory_fraction is not None:
        options["gpu_mem_limit"] = _resources.gpu_memory_bytes()
    yield "CUDAExecutionProvider", options
