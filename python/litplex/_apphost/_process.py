"""The app host from its order to its exit.

An order names the ``socket`` on which the app host listens, the ``inner`` socket on which the
server answers its forwarded requests, the file ``sources`` in which the app host says which source
files it has loaded, the server's built-in ``routes``, and the program to
``load``: the script that runs again up to the call that serves, as ``_worker/_load.py`` describes
it, and the paths of the endpoints that have an ``authorize``. Its output has the ``mark`` of the
order in front of each line of a request, as that of workers.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import uvicorn

from litplex._apphost._app import add_server_routes
from litplex._apphost._inner import BrokenOff, Inner
from litplex._apphost._manifest import guarded_endpoints
from litplex._apphost._root import Root
from litplex._capture import run_again
from litplex._launched import request_marks
from litplex._launched.order import read_order
from litplex._launched.sources import Sources

if TYPE_CHECKING:
    from litplex._types import Server

# uvicorn's warning for each request whose method its parser does not know.
_UNPARSED = "Invalid HTTP request"
# The limit of the server.
_HEADER_BYTES = 400 * 1024
# The server uses no connection that was idle for 10 s.
_KEEP_ALIVE_SECONDS = 30


def main() -> int:
    """Serves until a signal stops the process. Returns the exit status."""
    order, following = read_order()
    following.close()
    request_marks.mark(order["mark"])
    request_marks.structure()
    sources = Sources()
    sources.follow()
    call = run_again(order["load"])
    _check_guards(call.servers, order["load"]["guarded"])
    inner = Inner(order["inner"])
    for server in call.servers:
        server.app.state.litplex_inner = inner
        add_server_routes(server, order["routes"], is_last=server is call.servers[-1])
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    sources.tell = lambda loaded: _write(order["sources"], sources.loaded())
    sources.report()
    server = uvicorn.Server(
        uvicorn.Config(
            Root(call.servers),
            uds=order["socket"],
            log_level="warning",
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            use_colors=False,
            ws="none",
            lifespan="on",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
    )
    # The objects of the start live as long as the process: no later collection needs to visit them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    server.run()
    return 0 if server.started else 1


def _write(path: str, value: Any) -> None:
    """Replaces a file by a value as JSON: its reader sees the old one or the new one."""
    fresh = f"{path}.new"
    # The directory ends with the server.
    with contextlib.suppress(OSError):
        with open(fresh, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(fresh, path)


def _check_guards(servers: Sequence[Server], guarded: list[list[str]]) -> None:
    """Ends the process where the program, run again, would leave an endpoint open."""
    found = [endpoint for server in servers for endpoint in guarded_endpoints(server)]
    missing = [path for path, name in guarded if (path, name) not in found]
    if missing:
        sys.exit(f"error: run again, the program has no `authorize` for {', '.join(missing)}")


def _is_news(record: logging.LogRecord) -> bool:
    """Returns whether a record of uvicorn belongs in the log.

    A stream that its model broke off was logged by its worker. A request that cannot be parsed gets
    a 400, and any client could fill the log with those.
    """
    is_known = record.exc_info and isinstance(record.exc_info[1], BrokenOff)
    return not (is_known or str(record.msg).startswith(_UNPARSED))
