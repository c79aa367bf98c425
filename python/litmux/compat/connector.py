"""What ``import litserve.connector`` finds."""

import functools
import os
import subprocess

__all__ = ["check_cuda_with_nvidia_smi"]


@functools.lru_cache(maxsize=1)
def check_cuda_with_nvidia_smi() -> int:
    """Returns how many of the GPUs that ``nvidia-smi`` lists this process may use; 0 where there
    is no ``nvidia-smi``."""
    try:
        listed = subprocess.check_output(["nvidia-smi", "-L"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return 0
    # A line such as `GPU 0: NVIDIA H100 (UUID: GPU-5ef1…)`.
    gpus = [line for line in listed.splitlines() if line.startswith("GPU ")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return sum(_is_visible(gpu, visible.split(",")) for gpu in gpus) if visible else len(gpus)


def _is_visible(gpu, names):
    number = gpu.split(":")[0].removeprefix("GPU ")
    uuid = gpu.rpartition("UUID: ")[2].rstrip(") ")
    return any(name.strip() in (number, uuid) for name in names)
