"""Names of LitServe that litmux does not offer, and what to use instead."""


def missing(module, instead):
    """Returns a ``__getattr__`` for a module.

    Args:
        module: The name of the module.
        instead: What to do, in words, by the name that is not offered.
    """

    def get(name):
        place = module.replace("litmux.compat", "litserve", 1)
        if name in instead:
            raise ImportError(f"litmux has no `{place}.{name}`: {instead[name]}")
        raise AttributeError(f"module {place!r} has no attribute {name!r}")

    return get
