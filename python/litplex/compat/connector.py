"""The module ``litserve.connector``."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from typing import Any

__all__ = ["check_cuda_with_nvidia_smi"]


@functools.lru_cache(maxsize=1)
def check_cuda_with_nvidia_smi() -> int:
    """Returns the number of GPUs that ``nvidia-smi`` lists and this process may use; 0 without
    ``nvidia-smi``."""
    try:
        listed = subprocess.check_output(["nvidia-smi", "-L"]).decode()
    except (OSError, subprocess.CalledProcessError):
        return 0
    # A line such as `GPU 0: NVIDIA H100 (UUID: GPU-5ef1…)`.
    gpus = [line for line in listed.splitlines() if line.startswith("GPU ")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return sum(_is_visible(gpu, visible.split(",")) for gpu in gpus) if visible else len(gpus)


def _is_visible(gpu: str, names: list[str]) -> bool:
    number = gpu.split(":")[0].removeprefix("GPU ")
    uuid = gpu.rpartition("UUID: ")[2].rstrip(") ")
    return any(name.strip() in (number, uuid) for name in names)


class _Connector:
    """The meaning of a server's ``accelerator`` and ``devices`` on this machine.

    Attributes:
        accelerator: ``cpu``, ``cuda`` or ``mps``.
        devices: The number of devices, or a list of their indices.

    Raises:
        ValueError: there is no such accelerator.
    """

    def __init__(self, accelerator: str | None = "auto", devices: Any = "auto") -> None:
        wanted = self._sanitize_accelerator(accelerator)
        if wanted in ("auto", "gpu"):
            wanted = self._choose_gpu_accelerator_backend() or "cpu"
        self.accelerator = wanted
        if devices == "auto":
            devices = check_cuda_with_nvidia_smi() if wanted == "cuda" else 1
        self.devices = devices

    @staticmethod
    def _sanitize_accelerator(accelerator: str | None) -> str:
        name = "auto" if accelerator is None else str(accelerator).lower()
        if name not in ("auto", "cpu", "mps", "cuda", "gpu"):
            raise ValueError(
                f"accelerator must be one of 'auto', 'cpu', 'mps', 'cuda', or 'gpu', not "
                f"{accelerator!r}"
            )
        return name

    @staticmethod
    def _choose_gpu_accelerator_backend() -> str | None:
        if check_cuda_with_nvidia_smi() > 0:
            return "cuda"
        is_mac_with_gpu = sys.platform == "darwin" and platform.machine() == "arm64"
        return "mps" if is_mac_with_gpu else None
