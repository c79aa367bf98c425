"""The app of one server: its endpoints and the built-in routes, each behind its guards.

The built-in routes are rows of the server's route table (``crates/http/src/routes.rs``), which the
app host receives when it starts. Each row says who may use it: ``public`` and ``shutdown`` are
decided by the server alone, ``server`` and ``models`` by the guard of the app.

The key of the server is checked here, and not by the server: the check must run after the
program's middlewares, and programs use it as a dependency of their own routes.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from litplex import _http, _keys
from litplex._api import authorize_of
from litplex._apphost import _manifest
from litplex._apphost._forward import ENDPOINT, ForwardedResponse
from litplex._apphost._middleware import without_task_group
from litplex.compat.middlewares import RequestCountMiddleware

if TYPE_CHECKING:
    from litplex._types import Server

#: A dependency that refuses a request by raising; None lets every request pass.
Guard = Callable[..., Any]

#: A row of the server's route table: ``path``, ``methods``, ``access``, ``condition``, ``yields``.
RouteRow = Mapping[str, Any]


class _CountedApp(FastAPI):
    """An app that counts its active requests, outside all its middlewares."""

    def __init__(self, counter: SimpleNamespace) -> None:
        super().__init__(openapi_url=None)
        self._counted = RequestCountMiddleware(super().__call__, counter)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._counted(scope, receive, send)

    def add_middleware(self, kind: Any, *args: Any, **settings: Any) -> None:
        super().add_middleware(without_task_group(kind), *args, **settings)


def make_app(server: Server) -> FastAPI:
    """Returns the app of a server, to which the program may add routes and middlewares.

    The endpoints come first, so that no route of the program takes the place of an endpoint.
    :func:`add_server_routes` adds the built-in routes behind them.
    """
    server._active = SimpleNamespace(value=0)
    app = _CountedApp(server._active)
    app.state.litplex_inner = None
    app.add_exception_handler(_http.HTTPException, _http_error)
    observer = server if _manifest.events_of_requests(server) else None
    shared = _manifest.shared_paths([server])
    for api, path, name in zip(server.apis, server._paths(), server._names()):
        _add(app, path, ["POST"], guard_of(server, api), observer=observer)
        if path in shared:
            _match_endpoint(app.router.routes[-1], name)
        if getattr(api, "spec", None) is not None:
            _add(app, path, ["OPTIONS"], None)
    app.state.litplex_first_own_route = len(app.router.routes)
    for middleware in server.middlewares:
        kind, settings = middleware if isinstance(middleware, tuple) else (middleware, {})
        app.add_middleware(kind, **settings)
    return app


def _match_endpoint(route: Any, name: str) -> None:
    """Lets a route match only requests that the server admitted to the endpoint of this name."""
    matches = route.matches

    def matches_endpoint(scope: Scope) -> Any:
        return matches(scope) if scope.get(ENDPOINT) == name else (Match.NONE, {})

    route.matches = matches_endpoint


def own_routes(app: FastAPI) -> list[Any]:
    """Returns the routes of an app that the program has added."""

    def is_own(route: Any) -> bool:
        return getattr(getattr(route, "endpoint", None), "__module__", None) != __name__

    return list(filter(is_own, app.routes))


def is_route_at(route: Any, path: str) -> bool:
    """Returns whether a route, or an app mounted there, answers requests to this path."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return bool(route.matches(scope)[0] is not Match.NONE)


def add_server_routes(server: Server, table: Iterable[RouteRow], is_last: bool = True) -> None:
    """Adds the built-in routes to the app of a server, unless it has them.

    They come before the routes of the program, except those that yield: probes and metrics, which
    a program may serve itself.

    Args:
        server: The server of the app.
        table: The rows of the server's route table that are not endpoints.
        is_last: Whether no other app is asked after this one. Only the last app has the guarded
            routes that yield, so that the route of any program at their path comes first.
    """
    app: Any = server.app
    first = app.state.litplex_first_own_route
    if first is None:
        return
    app.state.litplex_first_own_route = None
    rows = [row for row in table if _has_route(server, row)]
    routes = app.router.routes
    end = len(routes)
    for row in rows:
        if not row["yields"]:
            _add_row(app, server, row)
    built_in, routes[end:] = routes[end:], []
    routes[first:first] = built_in
    for row in rows:
        if row["yields"] and (is_last or row["access"] == "public"):
            _add_row(app, server, row)


def _has_route(server: Server, row: RouteRow) -> bool:
    has_spec = any(getattr(api, "spec", None) is not None for api in server.apis)
    return row["condition"] != "openai" or has_spec


def _add_row(app: FastAPI, server: Server, row: RouteRow) -> None:
    # The server decides about these by itself.
    is_decided = row["access"] in ("public", "shutdown")
    guards = [] if is_decided else _guards_of_row(server, row)
    path = row["path"]
    if path.endswith("/*"):
        _add(app, f"{path[:-1]}{{rest:path}}", row["methods"], *guards, is_pattern=True)
    else:
        _add(app, path, row["methods"], *guards)


def _guards_of_row(server: Server, row: RouteRow) -> list[Guard | None]:
    if row["condition"] == "tool":
        return _guards_of_tools(server)
    is_single = len(server.apis) == 1
    return [guard_of(server, server.apis[0]) if is_single else _key_guard(server)]


def _http_error(_: Request, error: _http.HTTPException) -> JSONResponse:
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


def guard_of(server: Server, api: Any) -> Guard | None:
    """Returns the dependency that decides which callers may use an endpoint: the ``authorize`` of
    its model, or else the check of the server's key. None: every caller may."""
    return authorize_of(api) or _key_guard(server)


def _guards_of_tools(server: Server) -> list[Guard | None]:
    """Returns the guards that must all accept a call of ``/mcp``: it may be of any tool."""
    guards = [guard_of(server, api) for api in server.apis if getattr(api, "mcp", None) is not None]
    return list(dict.fromkeys(guards)) or [_key_guard(server)]


def _key_guard(server: Server) -> Guard | None:
    key = _keys.key("LIT_SERVER_API_KEY", server._profile).encode()

    def check_key(request: Request) -> None:
        given = request.headers.get("x-api-key")
        if given is None:
            raise _unauthorized("Not authenticated. Send the key in the header X-API-Key")
        if not hmac.compare_digest(given.encode("latin-1"), key):
            raise _unauthorized("Invalid API Key. Send the right one in the header X-API-Key")

    return check_key if key else None


def _unauthorized(detail: str) -> Exception:
    error: Exception = HTTPException(401, detail, {"WWW-Authenticate": "APIKey"})
    return error


def _add(
    app: FastAPI,
    path: str,
    methods: list[str],
    *guards: Guard | None,
    is_pattern: bool = False,
    observer: Server | None = None,
) -> None:
    # An endpoint's path that looks like a pattern must not open a path behind another guard.
    target = None if is_pattern else path

    dependencies = [Depends(guard) for guard in guards if guard is not None]
    if not dependencies:
        # FastAPI's handling of dependencies costs more than the whole rest of a request.
        app.add_route(path, _UnguardedRoute(target, observer), methods, include_in_schema=False)
        return

    async def forward(request: Request, response: Response) -> ForwardedResponse:
        # Dependencies may have added to its headers.
        return ForwardedResponse(request, target, response.headers.raw, observer)

    app.add_api_route(
        path, forward, methods=methods, dependencies=dependencies, include_in_schema=False
    )


class _UnguardedRoute:
    """A route without dependencies."""

    def __init__(self, target: str | None, observer: Server | None) -> None:
        self._target = target
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        response = ForwardedResponse(request, self._target, [], self._observer)
        await response(scope, receive, send)
