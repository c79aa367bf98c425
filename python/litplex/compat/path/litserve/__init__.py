"""A replacement of LitServe on ``PYTHONPATH``: importing it imports ``litplex.compat``."""

import importlib
import sys

from litplex.compat import _alias

_alias.install()
sys.modules[__name__] = importlib.import_module("litplex.compat")
