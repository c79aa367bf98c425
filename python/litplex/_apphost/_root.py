"""The app in front of the apps of all servers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from litplex._apphost import _manifest
from litplex._apphost._forward import ENDPOINT, INTERNAL, INTRODUCTION, RESULT, ForwardResult
from litplex._apphost._inner import BrokenOff
from litplex._callbacks import trigger
from litplex._launched.request_marks import set_current_request

if TYPE_CHECKING:
    from litplex._types import Server

# The server's header with the scheme and address of its client: `https://127.0.0.1:50000`.
_PEER = b"x-litplex-peer"
# The server's header with the number of a request that is recorded.
_NUMBER = b"x-litplex-request"
_REQUEST_ID = b"x-request-id"
# The server's header with the name of an endpoint that shares its path, percent-encoded.
_ENDPOINT = b"x-litplex-endpoint"
# The most characters of an id, as in the server.
_ID_CHARACTERS = 128


class Root:
    """Sends each request to the app of its server.

    Requests to an endpoint go to the app of its server. Others go to the first app that has a
    route for them, or, if none has, to the first app.
    """

    def __init__(self, servers: Sequence[Server]) -> None:
        self._apps: list[Any] = list(dict.fromkeys(server.app for server in servers))
        shared = _manifest.shared_paths(servers)
        # A request to a shared path has the name of its endpoint.
        self._owners: dict[tuple[str, str | None], Any] = {
            (path, name if path in shared else None): server.app
            for server in servers
            for path, name in zip(server._paths(), server._names())
        }
        self._observers = [server for server in servers if _manifest.events_of_requests(server)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._trigger("on_server_start")
            try:
                await self._run_lifespans(scope, receive, send)
            finally:
                self._trigger("on_server_end")
            return
        if not _take_introduction(scope):
            await _refuse(send)
            return
        set_current_request(_request_name(scope))
        result = scope[RESULT] = ForwardResult()

        async def send_unless_broken(message: Message) -> None:
            is_end = message["type"] == "http.response.body" and not message.get("more_body")
            if is_end and result.is_broken:
                raise BrokenOff
            await send(message)

        try:
            await self._app_for(scope)(scope, receive, send_unless_broken)
        except ClientDisconnect:
            # A middleware has read the body; no client waits for a response.
            pass
        except RuntimeError:
            # Middlewares that dispatch raise without a response; here no client waits for one.
            if not result.is_client_gone:
                raise

    def _trigger(self, event: str) -> None:
        for server in self._observers:
            trigger(server.callbacks, event, litserver=server)

    def _app_for(self, scope: Scope) -> Any:
        if len(self._apps) == 1:
            return self._apps[0]
        owner = self._owners.get((scope["path"], scope.get(ENDPOINT)))
        return (
            owner
            or self._first_with(scope)
            or self._first_with(_with_other_slash(scope))
            or self._apps[0]
        )

    def _first_with(self, scope: Scope) -> Any:
        return next((app for app in self._apps if _has_route(app, scope)), None)

    async def _run_lifespans(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starts and ends the lifespans of all apps."""
        if len(self._apps) == 1:
            await self._apps[0](scope, receive, send)
            return
        await receive()
        async with contextlib.AsyncExitStack() as stack:
            for app in self._apps:
                state = await stack.enter_async_context(app.router.lifespan_context(app))
                scope["state"].update(state or {})
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _has_route(app: Any, scope: Scope) -> bool:
    return any(route.matches(scope)[0] is not Match.NONE for route in app.routes)


def _with_other_slash(scope: Scope) -> Scope:
    """Returns the scope with the path to which an app that has it would redirect the client."""
    path = scope["path"]
    return {**scope, "path": path[:-1] if path.endswith("/") else f"{path}/"}


def _take_introduction(scope: Scope) -> bool:
    """Sets the client's address and the scheme, which the server sends in a header.

    Returns whether the header is there. Without it, the request is none that the server forwards.
    """
    introduction = [each for each in scope["headers"] if each[0].startswith(INTERNAL)]
    scope["headers"] = [each for each in scope["headers"] if not each[0].startswith(INTERNAL)]
    scope[INTRODUCTION] = introduction
    given = dict(introduction)
    if _ENDPOINT in given:
        scope[ENDPOINT] = unquote(given[_ENDPOINT].decode("latin-1"))
    try:
        scope["scheme"], scope["client"] = _parse_peer(given[_PEER])
    except (KeyError, ValueError):
        return False
    return True


def _parse_peer(peer: bytes) -> tuple[str, tuple[str, int]]:
    """Returns the scheme and the address in the header; raises ValueError if it is malformed."""
    scheme, separator, address = peer.decode("latin-1").partition("://")
    host, _, port = address.rpartition(":")
    if not (separator and host and scheme in ("http", "https")):
        raise ValueError(f"invalid peer: {peer!r}")
    return scheme, (host.strip("[]"), int(port))


def _request_name(scope: Scope) -> str:
    """Returns the name of a request in the log: its id, or one made of its number in the server."""
    for name, value in scope["headers"]:
        if name == _REQUEST_ID:
            id: str = value.decode("latin-1")
            if 0 < len(id) <= _ID_CHARACTERS and all("!" <= each <= "~" for each in id):
                return id
            break
    number = dict(scope[INTRODUCTION]).get(_NUMBER)
    return "" if number is None else f"r{number.decode('latin-1')}"


async def _refuse(send: Send) -> None:
    """Answers the server's own request, which checks that the event loop of this process runs."""
    await send({"type": "http.response.start", "status": 400, "headers": []})
    await send({"type": "http.response.body", "body": b""})
