"""The manifest of an app host: which programs need one, and what it is told."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from litplex import _handover, _keys, _options
from litplex._api import authorize_of, is_method_of

_PACKAGES = ("fastapi", "uvicorn")
_OF_REQUESTS = ("on_request", "on_response")


def manifest_of(
    servers: Sequence[Any], options: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Returns what the app host is told; None where the servers need none.

    Args:
        servers: What is served.
        options: Those of the whole server.

    Raises:
        ValueError: the program cannot have one.
    """
    needs = [need for server in servers for need in _needs(server)]
    if not needs:
        return None
    check_packages(needs[0])
    script = _handover.script()
    if script["file"] is None:
        raise _options.Mistakes(
            f"{needs[0]} needs a process that runs the program again, and only a file can be run "
            f"again; put the program into one"
        )
    guarded = [path for server in servers for path in guarded_paths(server)]
    own = [route for server in servers for route in _own_routes(server)]
    direct = [*_direct_paths(servers), *_direct_built_in(servers, own, options or {})]
    order = {"python": sys.executable, **script, "guarded": guarded, "direct": direct}
    return {**order, "has_routes": bool(own), **_cors_of(servers)}


def _cors_of(servers):
    """Returns whether the apps of the servers answer preflights, and for pages of which origins."""
    found = [_cors_settings(server) for server in servers if any(_needs(server))]
    origins = [origin for settings in found for each in settings for origin in _origins(each)]
    return {"answers_preflights": all(found), "origins": list(dict.fromkeys(origins))}


def _cors_settings(server):
    from starlette.middleware.cors import CORSMiddleware

    given = [each if isinstance(each, tuple) else (each, {}) for each in server.middlewares]
    if server._app is not None:
        given += [(each.cls, each.kwargs) for each in server._app.user_middleware]
    return [
        settings
        for kind, settings in given
        if isinstance(kind, type) and issubclass(kind, CORSMiddleware)
    ]


def _origins(settings):
    # What a pattern lets in is not known here; the middleware decides.
    return ["*"] if settings.get("allow_origin_regex") else settings.get("allow_origins", ())


def _own_routes(server):
    """Returns the routes that the program has added to the app of a server."""
    if server._app is None:
        return []
    from litplex._apphost._app import own_routes

    return own_routes(server._app)


def _direct_built_in(servers, own, options):
    """Returns what the server answers of its state itself, even where the app host hangs: all but
    what the program has a route for, or an ``authorize`` that guards it."""
    health = options.get("healthcheck_path", "/health")
    _, metrics, _ = _options.built_in_paths(options)
    paths = [*_options.probe_paths(options), health, metrics]
    # `authorize` of a single API guards what litplex answers too.
    if any(len(server.apis) == 1 and guarded_paths(server) for server in servers):
        paths = _options.probe_paths(options)
    if not own:
        return list(filter(None, paths))
    from litplex._apphost._app import is_route_at

    # What is mounted comes after it.
    own_of_health = [route for route in own if hasattr(route, "endpoint")]
    routes_at = {path: own for path in paths} | {health: own_of_health}
    return [
        path
        for path in filter(None, paths)
        if not any(is_route_at(route, path) for route in routes_at[path])
    ]


def _direct_paths(servers):
    """Returns the paths of the endpoints that nothing in the app host is for."""
    if any(_keys.key("LIT_SERVER_API_KEY", server._profile) for server in servers):
        return []  # It is checked there.
    free = [server for server in servers if not any(_needs(server))]
    return [path for server in free for path in server._paths()]


def check_packages(need: str) -> None:
    """Raises a ValueError that names what ``need`` cannot do without, where that is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise _options.Mistakes(
            f"{need} needs {' and '.join(_PACKAGES)}, and {' and '.join(missing)} "
            f'cannot be imported; `pip install "litplex[app]"`'
        )


def guarded_paths(server: Any) -> list[str]:
    """Returns the paths of the endpoints whose authors say who may call them."""
    return [path for api, path in zip(server.apis, server._paths()) if authorize_of(api)]


def events_of_requests(server: Any) -> list[str]:
    """Returns the events of requests that a callback of the server wants to be told of."""
    if not server.callbacks:
        return []
    from litplex.compat.callbacks import Callback

    def is_wanted(event):
        default = getattr(Callback, event)
        return not all(is_method_of(getattr(each, event), default) for each in server.callbacks)

    return list(filter(is_wanted, _OF_REQUESTS))


def _needs(server):
    if guarded_paths(server):
        yield "`authorize`"
    if server.middlewares:
        yield "`middlewares`"
    if server._app is not None:
        yield "`server.app`"
    for event in events_of_requests(server):
        yield f"`{event}` of a callback"
