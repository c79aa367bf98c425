"""Finds the litmux binary that was installed with this package."""

import os
import shutil
import sys
import sysconfig


def find_binary():
    """Returns the path of the binary.

    ``LITMUX_BIN`` names another one, for development.

    Raises:
        FileNotFoundError: lists the places where it was looked for.
    """
    given = os.environ.get("LITMUX_BIN")
    if given:
        return given
    package = os.path.dirname(os.path.abspath(__file__))
    places = [
        os.path.join(sysconfig.get_path("scripts"), "litmux"),
        # pip install --target puts scripts beside the packages.
        os.path.join(os.path.dirname(package), "bin", "litmux"),
        os.path.join(_user_scripts(), "litmux"),
        os.path.join(sys.prefix, "bin", "litmux"),
    ]
    for place in places:
        if os.access(place, os.X_OK):
            return place
    found = shutil.which("litmux")
    if found:
        return found
    looked = "\n".join(f"  {place}" for place in places)
    raise FileNotFoundError(
        f"the litmux binary is not installed; `pip install litmux` puts it there. Looked in:\n"
        f"{looked}\n  and on PATH"
    )


def _user_scripts():
    scheme = "posix_user" if os.name == "posix" else "nt_user"
    return sysconfig.get_path("scripts", scheme)
