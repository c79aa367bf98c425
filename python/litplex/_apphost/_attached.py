"""Serves the app of a server to callers in this process, as test clients do."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from litplex import _options, _server
from litplex._apphost._app import add_server_routes
from litplex._apphost._inner import Inner
from litplex._callbacks import trigger
from litplex._server import LitServer
from litplex.compat._profile import LITSERVE

_START_SECONDS = 30
_POLL_SECONDS = 0.005


@contextlib.contextmanager
def attached(server: LitServer) -> Iterator[LitServer]:
    """Runs litplex and the workers, so that ``server.app`` answers in this process alone.

    Raises:
        ValueError: names every error in the program.
        RuntimeError: litplex could not start; its output says why.
    """
    with tempfile.TemporaryDirectory(prefix="litplex-") as directory:
        inner, routes = (os.path.join(directory, name) for name in ("inner.sock", "routes.json"))
        app, connections = server.app, Inner(inner)
        program = _program_of(server, {"inner": inner, "routes": routes})
        with _server.start_binary(LITSERVE) as child:
            try:
                _server.hand_over(program, child)
                _wait_for(inner, child)
                with open(routes, encoding="utf-8") as table:
                    add_server_routes(server, json.load(table))
                app.state.litplex_inner = connections
                with _server_events(server):
                    yield server
            finally:
                app.state.litplex_inner = None
                connections.close()
                child.terminate()


@contextlib.contextmanager
def _server_events(server: LitServer) -> Iterator[None]:
    trigger(server.callbacks, "on_server_start", litserver=server)
    try:
        yield
    finally:
        trigger(server.callbacks, "on_server_end", litserver=server)


def _program_of(server: LitServer, app_host: dict[str, Any]) -> dict[str, Any]:
    # Requests to its port are refused: no app host is behind that.
    fixed = {"host": "127.0.0.1", "port": 0, "grace": 1}
    options = {**_server.shared_options([server], LITSERVE), **fixed}
    program = _server.program_of([server], options, app_host, LITSERVE)
    for endpoint in program["endpoint"]:
        # A test runs, not a program that could run again up to the call that serves.
        if endpoint.get("source", {}).get("kind") == "script":
            raise _options.ProgramError(
                f"endpoint `{endpoint['path']}`: its API, or a callback or logger, cannot be "
                "pickled; create in `setup(device)` the objects that cannot be sent to workers"
            )
    return program


def _wait_for(inner: str, child: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while child.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(inner)
            return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError("the litplex server did not start; its output says why")
