"""What ``import litserve.loops`` finds: nothing, with what to do instead.

The names of its modules can be imported, and say that where they are used.
"""

from litplex.compat._missing import missing

STEP = "write what one step does as `admit`, `step` and `finish` of a litplex.ContinuousAPI"
AUTO = 'leave out `loop`, or say loop="auto": batches and streams have theirs'

__getattr__ = missing(
    __name__,
    {
        "LitLoop": STEP,
        "DefaultLoop": STEP,
        "ContinuousBatchingLoop": STEP,
        "DefaultContinuousBatchingLoop": STEP,
        "Output": STEP,
        "SingleLoop": AUTO,
        "BatchedLoop": AUTO,
        "StreamingLoop": AUTO,
        "BatchedStreamingLoop": AUTO,
        "get_default_loop": AUTO,
        "inference_worker": AUTO,
    },
)
