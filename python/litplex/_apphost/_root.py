"""The app in front of those of all servers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from starlette.routing import Match

from litplex._apphost import _manifest
from litplex._apphost._forward import FATE, INTERNAL, INTRODUCTION, Fate
from litplex._apphost._inner import BrokenOff
from litplex._callbacks import trigger

# litplex says here who its client is, and how it came: `https://127.0.0.1:50000`.
_PEER = b"x-litplex-peer"


class Root:
    """Gives each request to the app of its server.

    An endpoint's requests go to the app of its own server. Others go to the first that has a
    route for them, and where none has, to the first.
    """

    def __init__(self, servers: Sequence[Any]) -> None:
        self._apps = list(dict.fromkeys(server.app for server in servers))
        self._owners = {path: server.app for server in servers for path in server._paths()}
        self._told = [server for server in servers if _manifest.events_of_requests(server)]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self._tell("on_server_start")
            try:
                await self._live(scope, receive, send)
            finally:
                self._tell("on_server_end")
            return
        if not _take_introduction(scope):
            await _refuse(send)
            return
        fate = scope[FATE] = Fate()

        async def send_truly(message):
            is_end = message["type"] == "http.response.body" and not message.get("more_body")
            if is_end and fate.is_broken:
                raise BrokenOff
            await send(message)

        try:
            await self._app_for(scope)(scope, receive, send_truly)
        except RuntimeError:
            # Middlewares that dispatch raise where nothing is answered; nobody waits for an answer.
            if not fate.is_client_gone:
                raise

    def _tell(self, event):
        for server in self._told:
            trigger(server.callbacks, event, litserver=server)

    def _app_for(self, scope):
        if len(self._apps) == 1:
            return self._apps[0]
        owner = self._owners.get(scope["path"])
        return (
            owner
            or self._first_with(scope)
            or self._first_with(_otherwise_ended(scope))
            or self._apps[0]
        )

    def _first_with(self, scope):
        return next((app for app in self._apps if _has_route(app, scope)), None)

    async def _live(self, scope, receive, send):
        """Begins and ends what the apps begin and end."""
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


def _has_route(app, scope):
    return any(route.matches(scope)[0] is not Match.NONE for route in app.routes)


def _otherwise_ended(scope):
    """Returns it with a path to which the app that has it would send the client on."""
    path = scope["path"]
    return {**scope, "path": path[:-1] if path.endswith("/") else f"{path}/"}


def _take_introduction(scope):
    """Sets who the client is, and the scheme; without litplex in between the app would know.

    Returns whether litplex said it; else it does not pass on a request of a client.
    """
    introduction = [each for each in scope["headers"] if each[0].startswith(INTERNAL)]
    scope["headers"] = [each for each in scope["headers"] if not each[0].startswith(INTERNAL)]
    scope[INTRODUCTION] = introduction
    peer = dict(introduction).get(_PEER)
    if peer is None:
        return False
    scope["scheme"], _, address = peer.decode("latin-1").partition("://")
    host, _, port = address.rpartition(":")
    scope["client"] = (host.strip("[]"), int(port))
    return True


async def _refuse(send):
    """Answers litplex itself, which asks so whether the loop of this process runs."""
    await send({"type": "http.response.start", "status": 400, "headers": []})
    await send({"type": "http.response.body", "body": b""})
