"""What ``import litserve.loops.streaming_loops`` finds."""

from litmux.compat._missing import unavailable_names
from litmux.compat.loops import AUTO

__getattr__ = unavailable_names(__name__, {"StreamingLoop": AUTO, "BatchedStreamingLoop": AUTO})
