"""What ``import litserve.loops.continuous_batching_loop`` finds."""

from litmux.compat._missing import unavailable_names
from litmux.compat.loops import STEP

_NAMES = ("ContinuousBatchingLoop", "DefaultContinuousBatchingLoop", "Output")

__getattr__ = unavailable_names(__name__, dict.fromkeys(_NAMES, STEP))
