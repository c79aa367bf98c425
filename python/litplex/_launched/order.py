"""The order that the server writes to the standard input of a process that it launches."""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO


def read_order() -> tuple[dict[str, Any], BinaryIO]:
    """Reads the order that the server wrote to our standard input, and leaves user code an empty
    one. Returns it, and the file in which what follows it can be read."""
    following = os.fdopen(os.dup(0), "rb")
    order = json.loads(following.readline())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return order, following
