"""What ``import litserve.middlewares`` finds: nothing, with what to do instead."""

from litmux.compat._missing import missing

__getattr__ = missing(
    __name__,
    {
        "MaxSizeMiddleware": "set `max_payload_size` of LitServer",
        "RequestCountMiddleware": "`litmux ps` shows what is in flight",
    },
)
