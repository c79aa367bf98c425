"""Finds the litplex binary that was installed with this package."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig


def find_binary() -> str:
    """Returns the path of the binary.

    ``LITPLEX_BIN`` names another one, for development.

    Raises:
        FileNotFoundError: lists the searched places.
    """
    given = os.environ.get("LITPLEX_BIN")
    if given:
        return given
    package = os.path.dirname(os.path.abspath(__file__))
    places = [
        os.path.join(sysconfig.get_path("scripts"), "litplex"),
        # pip install --target puts scripts beside the packages.
        os.path.join(os.path.dirname(package), "bin", "litplex"),
        os.path.join(_user_scripts(), "litplex"),
        os.path.join(sys.prefix, "bin", "litplex"),
    ]
    for place in places:
        if os.access(place, os.X_OK):
            return place
    found = shutil.which("litplex")
    if found:
        return found
    looked = "\n".join(f"  {place}" for place in places)
    raise FileNotFoundError(
        f"the litplex binary is not installed; `pip install litplex` puts it there. Looked in:\n"
        f"{looked}\n  and on PATH"
    )


def _user_scripts() -> str:
    scheme = "posix_user" if os.name == "posix" else "nt_user"
    return sysconfig.get_path("scripts", scheme)
