"""Finds the litplex binary that was installed with this package."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator


def find_binary() -> str:
    """Returns the path of the binary.

    ``LITPLEX_BIN`` names another one, for development.

    Raises:
        FileNotFoundError: lists the searched places.
    """
    given = os.environ.get("LITPLEX_BIN")
    if given:
        return given
    for place in _places():
        if os.access(place, os.X_OK):
            return place
    import shutil

    found = shutil.which("litplex")
    if found:
        return found
    looked = "\n".join(f"  {place}" for place in dict.fromkeys(_places()))
    raise FileNotFoundError(
        f"the litplex binary is not installed; `pip install litplex` puts it there. Looked in:\n"
        f"{looked}\n  and on PATH"
    )


def _places() -> Iterator[str]:
    """Yields where the binary may be, the likeliest place first."""
    if sys.prefix != sys.base_prefix and os.name == "posix":
        # A virtual environment, whose scripts are there: `sysconfig` takes 2 ms to say so.
        yield os.path.join(sys.prefix, "bin", "litplex")
    import sysconfig

    yield os.path.join(sysconfig.get_path("scripts"), "litplex")
    # pip install --target puts scripts beside the packages.
    package = os.path.dirname(os.path.abspath(__file__))
    yield os.path.join(os.path.dirname(package), "bin", "litplex")
    user_scheme = "posix_user" if os.name == "posix" else "nt_user"
    yield os.path.join(sysconfig.get_path("scripts", user_scheme), "litplex")
    yield os.path.join(sys.prefix, "bin", "litplex")
