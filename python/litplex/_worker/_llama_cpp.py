"""Lends idle cores to llama.cpp, from one token to the next.

Its threads spin at hundreds of barriers for each token: more of them than there are free cores make
every model on these cores many times slower, and a model that is alone with one thread leaves the
others idle. llama.cpp can be told another number before each decode, so that a worker gives cores
back within one measurement; other libraries take theirs when they begin a computation, or at their
start.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any

from litplex._worker._after_import import after_import

if TYPE_CHECKING:
    from litplex._worker._idle_cores import IdleCores

_NUMBERS = ("n_threads", "n_threads_batch")


def lend_idle_cores(cores: int, share: int) -> None:
    """Gives each model that is made from now on the cores that others leave idle, if it is made
    with the share of this worker or without a number. What its author sets stays.

    Args:
        cores: The number of cores that the workers share.
        share: The number of threads of this worker.
    """

    def follow(module: Any) -> None:
        from litplex._worker._idle_cores import IdleCores

        _give_share(module.Llama, share)
        # The share is all that is known to be free on other systems, and all that versions of the
        # library without these names can be told.
        with contextlib.suppress(OSError, KeyError, AttributeError):
            idle_cores = IdleCores(cores)
            internals = sys.modules["llama_cpp._internals"]
            for name in ("decode", "encode"):
                _adjust_before(internals, name, idle_cores, share)

    after_import("llama_cpp.llama", follow)


def _give_share(model: Any, share: int) -> None:
    create = model.__init__
    names = [name for name in _NUMBERS if name in inspect.signature(create).parameters]

    @functools.wraps(create)
    def create_with_share(self: Any, *args: Any, **options: Any) -> None:
        for name in names:
            if options.get(name) is None:
                options[name] = share
        create(self, *args, **options)

    model.__init__ = create_with_share


def _adjust_before(internals: Any, name: str, idle_cores: IdleCores, share: int) -> None:
    library = internals.llama_cpp
    number_of, batch_number_of = library.llama_n_threads, library.llama_n_threads_batch
    tell = library.llama_set_n_threads
    compute = getattr(internals.LlamaContext, name)

    @functools.wraps(compute)
    def computed(self: Any, *args: Any, **options: Any) -> Any:
        number = idle_cores.number(share)
        if number != self.__dict__.setdefault("_litplex_threads", share):
            made_with = self.__dict__.get("_litplex_made_with")
            if made_with is None:
                made_with = number_of(self.ctx), batch_number_of(self.ctx)
                self._litplex_made_with = made_with
            wanted = (number if made == share else made for made in made_with)
            tell(self.ctx, *wanted)
            self._litplex_threads = number
        return compute(self, *args, **options)

    setattr(internals.LlamaContext, name, computed)
