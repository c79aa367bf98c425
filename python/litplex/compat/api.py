"""The module ``litserve.api``."""

from __future__ import annotations

import litplex
from litplex.compat._profile import LITSERVE

__all__ = ["LitAPI"]


class LitAPI(litplex.LitAPI):
    # Without a docstring: `inspect.getdoc` finds that of litplex.
    _litplex_profile = LITSERVE
