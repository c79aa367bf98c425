"""The module ``litserve.cli``: the command, without those of the lightning-sdk."""

from __future__ import annotations

import sys

from litplex.compat._missing import unavailable_names

__all__ = ["main"]

_SDK = "litplex installs nothing; install lightning-sdk yourself for its commands"

__getattr__ = unavailable_names(__name__, {"_ensure_lightning_installed": _SDK})


def main() -> None:
    """Runs the command line of this process, and ends it with the exit status."""
    from litplex.compat.__main__ import main as run

    sys.exit(run(sys.argv[1:]))
