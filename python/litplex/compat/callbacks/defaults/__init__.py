"""Ready-made callbacks, as in ``litserve.callbacks.defaults``."""

from litplex.compat.callbacks.defaults.metric_callback import PredictionTimeLogger

__all__ = ["PredictionTimeLogger"]
