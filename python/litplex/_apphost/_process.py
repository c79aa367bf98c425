"""The app host from its order to its exit.

An order names the ``socket`` to listen on, the ``inner`` one to ask for what litplex answers, and
what to ``load``: the script that runs again up to the call that serves, as ``_worker/_load.py``
describes it, and the paths of the endpoints that have an ``authorize``.
"""

import gc
import logging
import sys

import uvicorn

from litplex._apphost._app import add_built_in, add_metrics, add_probes
from litplex._apphost._inner import BrokenOff, Inner
from litplex._apphost._manifest import guarded_paths
from litplex._apphost._root import Root
from litplex._capture import run_again
from litplex._launched import request_marks
from litplex._launched.order import read_order

# What uvicorn warns of for each request of a method that its parser does not know.
_UNPARSED = "Invalid HTTP request"
# As much as litplex itself takes.
_HEADER_BYTES = 400 * 1024


def main():
    """Serves until it is told to stop. Returns the exit status."""
    order, following = read_order()
    following.close()
    request_marks.structure()
    call = run_again(order["load"])
    _check_guards(call.servers, order["load"]["guarded"])
    inner = Inner(order["inner"])
    for server in call.servers:
        server.app.state.litplex_inner = inner
        add_built_in(server.app, server, call.options)
        add_probes(server.app, call.options)
    # The last is asked where no app before it has a route of its own there.
    add_metrics(call.servers[-1], call.options)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
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
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
    )
    # What is there by now stays, and need not be looked through for garbage again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    server.run()
    return 0 if server.started else 1


def _check_guards(servers, guarded):
    """Ends the process where the program, run again, would leave an endpoint open."""
    found = {path for server in servers for path in guarded_paths(server)}
    missing = [path for path in guarded if path not in found]
    if missing:
        sys.exit(f"error: run again, the program has no `authorize` for {', '.join(missing)}")


def _is_news(record):
    """Leaves out what is in the log already, and what any client could fill it with.

    A stream that its model broke off was logged by its worker. A request that cannot be parsed is
    answered 400.
    """
    is_known = record.exc_info and isinstance(record.exc_info[1], BrokenOff)
    return not (is_known or str(record.msg).startswith(_UNPARSED))
