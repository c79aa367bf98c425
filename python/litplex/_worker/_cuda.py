"""The memory of this process on NVIDIA GPUs while it hibernates: the driver moves it to the host.

A process may do this to itself without any privilege. Drivers from 570 on have it:
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CHECKPOINT.html
"""

from __future__ import annotations

import ctypes
import os

_LIBRARY = "libcuda.so.1"

# The time in which work that was already given to the GPU has to end.
_LOCK_MILLISECONDS = 10_000

# From cuda.h.
_SUCCESS = 0
_NOT_INITIALIZED = 3


class CheckpointError(Exception):
    """The driver could not move the memory."""


class _LockArgs(ctypes.Structure):
    """`CUcheckpointLockArgs` of cuda.h."""

    _fields_ = (
        ("timeout_ms", ctypes.c_uint),
        ("reserved0", ctypes.c_uint),
        ("reserved1", ctypes.c_uint64 * 7),
    )


def can_checkpoint(device: str) -> bool:
    """Returns whether what this process has on a device can be moved; on the CPU that is nothing,
    whatever has loaded the driver.

    Args:
        device: the device that the server gave to the worker, such as `cuda:0` or `cpu`.
    """
    if device == "cpu":
        return True
    driver = _loaded_driver()
    return driver is not None and hasattr(driver, "cuCheckpointProcessLock")


def checkpoint() -> bool:
    """Moves what this process has on GPUs to memory of the host. Calls of CUDA wait until
    :func:`restore`.

    Returns:
        Whether it had anything there.

    Raises:
        CheckpointError: the driver refused. It is as before, as far as the driver could do that.
    """
    driver = _loaded_driver()
    if driver is None:
        return False
    lock = _LockArgs(timeout_ms=_LOCK_MILLISECONDS)
    status = driver.cuCheckpointProcessLock(os.getpid(), ctypes.byref(lock))
    if status == _NOT_INITIALIZED:
        return False
    _check(driver, "cuCheckpointProcessLock", status)
    status = driver.cuCheckpointProcessCheckpoint(os.getpid(), None)
    if status != _SUCCESS:
        driver.cuCheckpointProcessUnlock(os.getpid(), None)
    _check(driver, "cuCheckpointProcessCheckpoint", status)
    return True


def restore() -> None:
    """Moves back what :func:`checkpoint` moved.

    Raises:
        CheckpointError: the driver could not. CUDA cannot be used any more, and calls of it may
            wait forever.
    """
    driver = _loaded_driver()
    assert driver is not None, "it has checkpointed"
    for name in ("cuCheckpointProcessRestore", "cuCheckpointProcessUnlock"):
        _check(driver, name, getattr(driver, name)(os.getpid(), None))


def _loaded_driver() -> ctypes.CDLL | None:
    """Returns the driver, if something in this process has loaded it."""
    try:
        return ctypes.CDLL(_LIBRARY, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except (OSError, AttributeError):
        return None


def _check(driver: ctypes.CDLL, name: str, status: int) -> None:
    if status == _SUCCESS:
        return
    text = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(text))
    reason = (text.value or b"").decode() or "an error without a text"
    raise CheckpointError(f"{name}: {reason} ({status})")
