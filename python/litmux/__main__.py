"""``python -m litmux``: the litmux command."""

import os
import sys

from litmux._binary import find_binary

if __name__ == "__main__":
    binary = find_binary()
    os.execv(binary, [binary, *sys.argv[1:]])
