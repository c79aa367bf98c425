"""What ``import litplex`` finds in processes that a worker starts, where litplex is not installed:
the package of the server, and nothing else that is beside it."""

import os

_here = os.path.dirname(os.path.abspath(__file__))
_package = os.path.dirname(os.path.dirname(os.path.dirname(_here)))

__path__ = [_package]
__file__ = os.path.join(_package, "__init__.py")
with open(__file__, "rb") as _source:
    exec(compile(_source.read(), __file__, "exec"))
