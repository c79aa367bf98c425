"""What a worker may use of its machine, as its server says."""

from __future__ import annotations

#: CPU threads; ``None`` outside of a worker.
threads: int | None = None

#: ``cpu``, ``cuda:0``, ``mps:0``; ``None`` outside of a worker.
device: str | None = None

#: The share of the memory of its GPU, where there is a limit.
gpu_memory_fraction: float | None = None


def cuda_index() -> int | None:
    """Returns the index of the worker's GPU, as CUDA counts them in this process."""
    kind, _, index = (device or "").partition(":")
    return int(index or 0) if kind == "cuda" else None


def gpu_memory_bytes() -> int:
    """Returns the worker's share of the memory of its GPU in bytes.

    Raises:
        OSError: NVIDIA's driver is not there, or does not say.
    """
    # Loaded by those that need it: it is part of no start.
    import ctypes

    driver = ctypes.CDLL("libcuda.so.1")
    handle, total = ctypes.c_int(), ctypes.c_size_t()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(handle), cuda_index() or 0)
        or driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle)
    )
    if failed:
        raise OSError(f"CUDA's driver does not say how much memory {device} has: error {failed}")
    return int(total.value * (gpu_memory_fraction or 1.0))
