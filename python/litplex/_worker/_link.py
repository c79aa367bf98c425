"""The connections of this process to the server, and their first frames."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from litplex._worker.wire import frames

_SEND_BUFFER_BYTES = 4 << 20


class Link:
    """The two connections to the server."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.data, self.reader = dial(order, "data")
        self.control, self.control_reader = dial(order, "control")

    def wait_for_setup(self) -> Any:
        """Returns the settings of the model; None if the server is gone."""
        kind, setup = self.reader.message(frames.SETUP)
        return None if kind is None else setup

    def close(self) -> None:
        self.data.close()
        self.control.close()


def dial(order: dict[str, Any], role: str) -> Any:
    """Returns a new connection in this role, and the reader of its frames.

    Raises:
        ConnectionError: the server is gone.
        SystemExit: the server refused this worker.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(order["socket"])
    except FileNotFoundError:
        raise ConnectionRefusedError("the server closed the socket of this start") from None
    # As the server does on its side; the kernel takes less where its limit is lower.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    hello = {
        "protocol": frames.PROTOCOL,
        "token": order["token"],
        "role": role,
        "pid": os.getpid(),
        "python": sys.version.split()[0],
    }
    sock.sendall(frames.encode_message(frames.HELLO, hello))
    reader = frames.FrameReader(sock)
    kind, message = reader.message(frames.WELCOME, frames.REFUSE)
    if kind != frames.WELCOME:
        reason = message.get("reason") if message else "the server closed the connection"
        raise SystemExit(f"the server refused this worker: {reason}")
    return sock, reader
