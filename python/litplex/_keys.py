"""The keys of the whole server: variables of its environment, or values that a program sets."""

from __future__ import annotations

import os

from litplex._profile import Profile

_VARIABLES = ("LIT_SERVER_API_KEY", "LIT_SHUTDOWN_API_KEY")


def key(variable: str, profile: Profile) -> str:
    """Returns the key that the program has set for a variable, or that of the environment; an
    empty text if neither exists."""
    # Files and shells leave a line break at the end, which no header can carry. The server also
    # strips it.
    return (profile.program_key(variable) or os.environ.get(variable, "")).strip()


def environment(profile: Profile) -> dict[str, str]:
    """Returns the environment of the server, with its keys."""
    keys = {variable: key(variable, profile) for variable in _VARIABLES}
    return {**os.environ, **{variable: value for variable, value in keys.items() if value}}
