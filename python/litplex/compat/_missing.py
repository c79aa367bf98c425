"""Names of LitServe that litplex does not offer, and what to use instead."""


def missing(module, instead):
    """Returns a ``__getattr__`` for a module.

    Args:
        module: The name of the module.
        instead: What to do, in words, by the name that is not offered.
    """

    def get(name):
        place = module.replace("litplex.compat", "litserve", 1)
        if name in instead:
            raise ImportError(f"litplex has no `{place}.{name}`: {instead[name]}")
        raise AttributeError(f"module {place!r} has no attribute {name!r}")

    return get


def unavailable(name, instead):
    """Returns a class in the place of one that has no counterpart here: it can be imported, named
    in annotations and subclassed, and says what to do instead where an object is made of it.

    Args:
        name: What LitServe calls it, with its module.
        instead: What to do, in words.
    """

    def refuse(*_, **__):
        raise NotImplementedError(f"litplex has no `{name}`: {instead}")

    body = {"__new__": refuse, "__doc__": f"Not offered: {instead}."}
    return type(name.rpartition(".")[2], (Exception,), body)


def unavailable_names(module, names):
    """Returns a ``__getattr__`` for a module that has nothing but classes that are not available.

    Args:
        module: The name of the module.
        names: What to do instead, in words, by the name.
    """
    place = module.replace("litplex.compat", "litserve", 1)
    made = {}

    def get(name):
        if name not in names:
            raise AttributeError(f"module {place!r} has no attribute {name!r}")
        if name not in made:
            made[name] = unavailable(f"{place}.{name}", names[name])
        return made[name]

    return get
