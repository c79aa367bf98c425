"""What ``import litserve.loggers`` finds: nothing, with what to do instead."""

from litmux.compat._missing import missing

__getattr__ = missing(
    __name__,
    {"Logger": "print, or use logging, in the hooks: every line names its endpoint and worker"},
)
