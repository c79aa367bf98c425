"""The module ``litserve.loops``: no class is available, and each error names the alternative.

The classes of its submodules can be imported; creating an object raises the error.
"""

from litplex.compat._missing import missing

STEP = "write `admit`, `step` and `finish` of a litplex.ContinuousAPI"
AUTO = 'leave out `loop`, or give loop="auto": batches and streams have loops of their own'

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
