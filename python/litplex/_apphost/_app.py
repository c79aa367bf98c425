"""The app of one server: the routes that litplex answers, behind who may ask for them."""

from __future__ import annotations

import hmac
from types import SimpleNamespace
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.routing import Match

from litplex import _http, _keys, _options
from litplex._api import authorize_of
from litplex._apphost import _manifest
from litplex._apphost._forward import Forwarded
from litplex._apphost._middleware import lighter
from litplex.compat.middlewares import RequestCountMiddleware


class _CountedApp(FastAPI):
    """Counts the requests that it is answering, in front of all its middlewares."""

    def __init__(self, counter):
        super().__init__(openapi_url=None)
        self._counted = RequestCountMiddleware(super().__call__, counter)

    async def __call__(self, scope, receive, send):
        await self._counted(scope, receive, send)

    def add_middleware(self, kind, *args, **settings):
        super().add_middleware(lighter(kind), *args, **settings)


def make_app(server: Any) -> FastAPI:
    """Makes the app that the program may add to.

    What litplex serves comes before what is added later, so that no route of the program's own
    takes the place of an endpoint.
    """
    server._active = SimpleNamespace(value=0)
    app = _CountedApp(server._active)
    app.state.litplex_inner = None
    app.add_exception_handler(_http.HTTPException, _answer_exception)
    told = server if _manifest.events_of_requests(server) else None
    for api, path in zip(server.apis, server._paths()):
        _add(app, path, ["POST"], guard_of(server, api), told=told)
        if getattr(api, "spec", None) is not None:
            _add(app, path, ["OPTIONS"], None)
            _add(app, "/v1/models", ["GET", "HEAD"], _guard_of_all(server))
            guard = _guard_of_all(server)
            _add(app, "/v1/models/{model:path}", ["GET", "HEAD"], guard, is_pattern=True)
    add_built_in(app, server, server.server_options)
    for middleware in server.middlewares:
        kind, settings = middleware if isinstance(middleware, tuple) else (middleware, {})
        app.add_middleware(kind, **settings)
    return app


def own_routes(app: FastAPI) -> list[Any]:
    """Returns the routes of an app that the program has added."""

    def is_own(route):
        return getattr(getattr(route, "endpoint", None), "__module__", None) != __name__

    return list(filter(is_own, app.routes))


def is_route_at(route: Any, path: str) -> bool:
    """Returns whether a route, or what is mounted there, answers requests to this path."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return route.matches(scope)[0] is not Match.NONE


def add_metrics(server: Any, options: dict[str, Any]) -> None:
    """Adds the route of the metrics to the app of a server, after all that the program added:
    what it has at this path takes the route's place."""
    _, metrics, _ = _options.built_in_paths(options)
    if metrics:
        _add(server.app, metrics, ["GET", "HEAD"], _guard_of_all(server))


def add_built_in(app: FastAPI, server: Any, options: dict[str, Any]) -> None:
    """Adds the routes that the server answers itself, where these options have them."""
    read, _, stop = _options.built_in_paths(options)
    probes = _options.probe_paths(options)
    for path in read:
        if path not in probes:
            _add(app, path, ["GET", "HEAD"], _guard_of_all(server))
    for path in ("/mcp", "/mcp/"):
        _add(app, path, ["POST"], *_guards_of_tools(server))
    if stop:
        # It has a key of its own, which is checked where it is answered.
        _add(app, stop, ["POST"], None)


def _answer_exception(_, error):
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


def add_probes(app: FastAPI, options: dict[str, Any]) -> None:
    """Adds the routes of probes, which nobody is kept from; those of the program's own come
    first."""
    for path in _options.probe_paths(options):
        _add(app, path, ["GET", "HEAD"])


def guard_of(server: Any, api: Any) -> Any:
    """Returns the dependency that decides who may call an endpoint: the ``authorize`` of its model,
    else the check of the server's key. None: there is neither."""
    return authorize_of(api) or _key_guard(server)


def _guard_of_all(server):
    return guard_of(server, server.apis[0]) if len(server.apis) == 1 else _key_guard(server)


def _guards_of_tools(server):
    """Returns what must all agree: a call may be of any tool."""
    guards = [guard_of(server, api) for api in server.apis if getattr(api, "mcp", None) is not None]
    return list(dict.fromkeys(guards)) or [_key_guard(server)]


def _key_guard(server):
    key = _keys.key("LIT_SERVER_API_KEY", server._profile).encode()

    def check_key(request: Request) -> None:
        given = request.headers.get("x-api-key")
        if given is None:
            raise _unauthorized("Not authenticated. Send the key in the header X-API-Key")
        if not hmac.compare_digest(given.encode("latin-1"), key):
            raise _unauthorized("Invalid API Key. Send the right one in the header X-API-Key")

    return check_key if key else None


def _unauthorized(detail):
    return HTTPException(401, detail, {"WWW-Authenticate": "APIKey"})


def _add(app, path, methods, *guards, is_pattern=False, told=None):
    # An endpoint's path that looks like a pattern must not open what is behind another guard.
    target = None if is_pattern else path

    dependencies = [Depends(guard) for guard in guards if guard is not None]
    if not dependencies:
        # It is spared what FastAPI does for those, which costs more than all the rest.
        app.add_route(path, _Forwarding(target, told), methods, include_in_schema=False)
        return

    async def forward(request: Request, response: Response):
        # Dependencies may have added to its headers.
        return Forwarded(request, target, response.headers.raw, told)

    app.add_api_route(
        path, forward, methods=methods, dependencies=dependencies, include_in_schema=False
    )


class _Forwarding:
    """A route that nothing comes before."""

    def __init__(self, target, told):
        self._target = target
        self._told = told

    async def __call__(self, scope, receive, send):
        answer = Forwarded(Request(scope, receive, send), self._target, [], self._told)
        await answer(scope, receive, send)
