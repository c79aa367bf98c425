"""Serves the app of a server to whoever calls it in this process, as test clients do."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from litplex import _options, _server
from litplex._apphost._inner import Inner
from litplex._callbacks import trigger
from litplex.compat._profile import LITSERVE

_START_SECONDS = 30
_LOOK_SECONDS = 0.005


@contextlib.contextmanager
def attached(server: Any) -> Iterator[Any]:
    """Within it, ``server.app`` answers: litplex and the workers run, and listen to nobody else.

    Raises:
        ValueError: names every mistake in what is to be served.
        RuntimeError: litplex could not start; what it printed says why.
    """
    with tempfile.TemporaryDirectory(prefix="litplex-") as directory:
        inner = os.path.join(directory, "inner.sock")
        app, connections = server.app, Inner(inner)
        program = _program_of(server, inner)
        with _server.start_binary(LITSERVE) as child:
            try:
                _server.hand_over(program, child)
                _wait_for(inner, child)
                app.state.litplex_inner = connections
                with _told(server.callbacks, litserver=server):
                    yield server
            finally:
                app.state.litplex_inner = None
                connections.close()
                child.terminate()


@contextlib.contextmanager
def _told(callbacks, **whose):
    trigger(callbacks, "on_server_start", **whose)
    try:
        yield
    finally:
        trigger(callbacks, "on_server_end", **whose)


def _program_of(server, inner):
    # It refuses what comes over its port: there is no app host behind that.
    fixed = {"host": "127.0.0.1", "port": 0, "grace": 1}
    options = {**_server.shared_options([server], LITSERVE), **fixed}
    program = _server.program_of([server], options, {"inner": inner}, LITSERVE)
    for endpoint in program["endpoint"]:
        # What runs is a test, and not a program that could run again up to the call that serves.
        if endpoint.get("source", {}).get("kind") == "script":
            raise _options.Mistakes(
                f"endpoint `{endpoint['path']}`: its API, or a callback or logger, cannot be "
                "pickled; make in `setup(device)` what cannot be sent to workers"
            )
    return program


def _wait_for(inner: str, child: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while child.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(inner)
            return
        time.sleep(_LOOK_SECONDS)
    raise RuntimeError("the litplex server did not start; see what it printed")
