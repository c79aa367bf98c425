"""The package ``litplex`` in processes that a worker starts, if litplex is not installed there: the
package of the server, and nothing else beside it."""

import os

_here = os.path.dirname(os.path.abspath(__file__))
_package = os.path.dirname(os.path.dirname(os.path.dirname(_here)))

__path__ = [_package]
__file__ = os.path.join(_package, "__init__.py")
with open(__file__, "rb") as _source:
    exec(compile(_source.read(), __file__, "exec"))
