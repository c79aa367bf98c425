"""The resources that a worker may use, as the server has set them."""

from __future__ import annotations

#: The number of CPU threads; ``None`` outside a worker.
threads: int | None = None

#: The device: ``cpu``, ``cuda:0``, ``mps:0``; ``None`` outside a worker.
device: str | None = None

#: The share of the GPU's memory, 0 to 1; ``None`` without a limit.
gpu_memory_fraction: float | None = None


def cuda_index() -> int | None:
    """Returns the index of the worker's GPU, as CUDA counts them in this process."""
    kind, _, index = (device or "").partition(":")
    return int(index or 0) if kind == "cuda" else None


def gpu_memory_bytes() -> int:
    """Returns the worker's share of the memory of its GPU in bytes.

    Raises:
        OSError: NVIDIA's driver is missing, or does not report the size.
    """
    # Loaded on use, so that no start pays for it.
    import ctypes

    driver = ctypes.CDLL("libcuda.so.1")
    handle, total = ctypes.c_int(), ctypes.c_size_t()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(handle), cuda_index() or 0)
        or driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle)
    )
    if failed:
        raise OSError(f"CUDA's driver does not report the memory of {device}: error {failed}")
    return int(total.value * (gpu_memory_fraction or 1.0))
