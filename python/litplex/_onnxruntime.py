"""What ONNX Runtime must be told: its threads follow no variable, and its memory no other limit."""

from __future__ import annotations

from typing import Any

from litplex import _resources


def onnxruntime_options() -> dict[str, Any]:
    """Returns keyword arguments of ``onnxruntime.InferenceSession`` that keep it to what its
    worker may use::

        def setup(self, device):
            options = ls.onnxruntime_options()
            self.session = onnxruntime.InferenceSession("model.onnx", **options)

    ``sess_options`` are ``SessionOptions`` with the worker's number of threads, to which more can
    be added. ``providers`` are the worker's device: on CUDA its index, with the bytes of
    ``gpu_memory_fraction`` as ``gpu_mem_limit``, and the CPU for what that cannot do. Outside of a
    worker, ONNX Runtime's own number of threads and the CPU.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if _resources.threads is not None:
        options.intra_op_num_threads = _resources.threads
        options.inter_op_num_threads = 1
    return {"sess_options": options, "providers": [*_cuda(), "CPUExecutionProvider"]}


def _cuda():
    index = _resources.cuda_index()
    if index is None:
        return
    options = {"device_id": index}
    if _resources.gpu_memory_fraction is not None:
        options["gpu_mem_limit"] = _resources.gpu_memory_bytes()
    yield "CUDAExecutionProvider", options
