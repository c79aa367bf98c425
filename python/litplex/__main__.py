"""``python -m litplex``: the litplex command."""

import os
import sys

from litplex._binary import find_binary

if __name__ == "__main__":
    binary = find_binary()
    os.execv(binary, [binary, *sys.argv[1:]])
