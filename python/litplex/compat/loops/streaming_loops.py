"""The module ``litserve.loops.streaming_loops``."""

from litplex.compat._missing import unavailable_names
from litplex.compat.loops import AUTO

__getattr__ = unavailable_names(__name__, {"StreamingLoop": AUTO, "BatchedStreamingLoop": AUTO})
