"""The module ``litserve.loops.base``."""

from litplex.compat._missing import unavailable_names
from litplex.compat.loops import AUTO, STEP

__getattr__ = unavailable_names(
    __name__,
    {
        "LitLoop": STEP,
        "DefaultLoop": STEP,
        "_BaseLoop": STEP,
        "_SENTINEL_VALUE": AUTO,
        "_StopLoopError": AUTO,
        "_async_inject_context": AUTO,
        "_inject_context": AUTO,
        "_sync_fn_to_async_fn": AUTO,
        "collate_requests": AUTO,
    },
)
