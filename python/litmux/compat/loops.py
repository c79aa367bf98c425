"""What ``import litserve.loops`` finds: nothing, with what to do instead."""

from litmux.compat._missing import missing

# A package without modules: asked for one, the finder of `litserve` says what there is.
__path__: list[str] = []

_STEP = "write what one step does as `admit`, `step` and `finish` of a litmux.ContinuousAPI"
_AUTO = 'leave out `loop`, or say loop="auto": batches and streams have theirs'

__getattr__ = missing(
    __name__,
    {
        "LitLoop": _STEP,
        "DefaultLoop": _STEP,
        "ContinuousBatchingLoop": _STEP,
        "DefaultContinuousBatchingLoop": _STEP,
        "Output": _STEP,
        "SingleLoop": _AUTO,
        "BatchedLoop": _AUTO,
        "StreamingLoop": _AUTO,
        "BatchedStreamingLoop": _AUTO,
        "get_default_loop": _AUTO,
        "inference_worker": _AUTO,
    },
)
