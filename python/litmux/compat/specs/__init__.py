"""What ``import litserve.specs`` finds: nothing yet, with what to do instead."""

from litmux.compat._missing import missing

_NOT_YET = "it is not supported yet; answer plain requests in `predict`"

__getattr__ = missing(
    __name__,
    {
        "OpenAISpec": _NOT_YET,
        "OpenAIEmbeddingSpec": _NOT_YET,
        "LitSpec": "a spec of one's own reads LitServe's queues, which litmux does not have",
    },
)
