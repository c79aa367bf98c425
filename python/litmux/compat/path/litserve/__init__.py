"""Stands on ``PYTHONPATH`` for LitServe: what is imported is ``litmux.compat``."""

import importlib
import sys

from litmux.compat import _alias

_alias.install()
sys.modules[__name__] = importlib.import_module("litmux.compat")
