"""The module ``litserve.loops.continuous_batching_loop``."""

from litplex.compat._missing import unavailable_names
from litplex.compat.loops import STEP

_NAMES = ("ContinuousBatchingLoop", "DefaultContinuousBatchingLoop", "Output")

__getattr__ = unavailable_names(__name__, dict.fromkeys(_NAMES, STEP))
