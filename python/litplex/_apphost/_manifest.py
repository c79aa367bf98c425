"""The manifest of an app host: which programs need one, and what the server is told about it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from litplex import _handover, _keys, _options
from litplex._api import authorize_of, is_method_of

if TYPE_CHECKING:
    from litplex._options import Options
    from litplex._types import Server

_PACKAGES = ("fastapi", "uvicorn")
_REQUEST_EVENTS = ("on_request", "on_response")


def manifest_of(servers: Sequence[Server], options: Options | None = None) -> dict[str, Any] | None:
    """Returns the manifest of the app host; None where the servers need none.

    Args:
        servers: The servers of the program.
        options: The options of the whole server. Default: none.

    Raises:
        ValueError: the program needs an app host and cannot have one.
    """
    needs = [need for server in servers for need in _needs(server)]
    if not needs:
        return None
    check_packages(needs[0])
    script = _handover.script()
    if script["file"] is None:
        raise _options.ProgramError(
            f"{needs[0]} needs a process that runs the program again, and only a file can be run "
            f"again; put the program into one"
        )
    guarded = [endpoint for server in servers for endpoint in guarded_endpoints(server)]
    own = [route for server in servers for route in _own_routes(server)]
    direct = [*_direct_paths(servers), *_direct_built_in(servers, own, options or {})]
    manifest = {"python": sys.executable, **script, "guarded": guarded, "direct": direct}
    return {**manifest, "has_routes": bool(own), **_cors_of(servers)}


def _cors_of(servers: Sequence[Server]) -> dict[str, Any]:
    """Returns whether the apps of the servers answer preflights, and for which origins."""
    found = [_cors_settings(server) for server in servers if any(_needs(server))]
    origins = [origin for settings in found for each in settings for origin in _origins(each)]
    return {"answers_preflights": all(found), "origins": list(dict.fromkeys(origins))}


def _cors_settings(server: Server) -> list[dict[str, Any]]:
    from starlette.middleware.cors import CORSMiddleware

    given = [each if isinstance(each, tuple) else (each, {}) for each in server.middlewares]
    if server._app is not None:
        given += [(each.cls, each.kwargs) for each in server._app.user_middleware]
    return [
        settings
        for kind, settings in given
        if isinstance(kind, type) and issubclass(kind, CORSMiddleware)
    ]


def _origins(settings: dict[str, Any]) -> Iterable[str]:
    # The server does not evaluate a pattern of origins; the middleware decides.
    if settings.get("allow_origin_regex"):
        return ["*"]
    origins: Iterable[str] = settings.get("allow_origins", ())
    return origins


def _own_routes(server: Server) -> list[Any]:
    """Returns the routes that the program has added to the app of a server."""
    if server._app is None:
        return []
    from litplex._apphost._app import own_routes

    return own_routes(server._app)


def _direct_built_in(servers: Sequence[Server], own: list[Any], options: Options) -> list[str]:
    """Returns the paths of the server's state that bypass the app host, so that they answer even
    while it hangs: all but those with a route of the program, or an ``authorize`` that guards
    them."""
    paths = _options.route_paths(options)
    probes = [paths["livez_path"], paths["readyz_path"]]
    health = paths["healthcheck_path"]
    # `authorize` of a single API guards the built-in routes, too.
    is_guarded = any(len(server.apis) == 1 and guarded_endpoints(server) for server in servers)
    direct = probes if is_guarded else [*probes, health, paths["metrics_path"]]
    direct = list(filter(None, direct))
    if not own:
        return direct
    from litplex._apphost._app import is_route_at

    # An app that is mounted comes after the health check.
    own_before_health = [route for route in own if hasattr(route, "endpoint")]
    own_at = {path: own for path in direct} | {health: own_before_health}
    return [path for path in direct if not any(is_route_at(route, path) for route in own_at[path])]


def _direct_paths(servers: Sequence[Server]) -> list[str]:
    """Returns the paths of the endpoints whose requests need nothing of the app host."""
    if any(_keys.key("LIT_SERVER_API_KEY", server._profile) for server in servers):
        return []  # The app host checks the key.
    free = [server for server in servers if not any(_needs(server))]
    fronted = {path for server in servers if server not in free for path in server._paths()}
    # A path that another server shares may be for an endpoint of that server.
    return [path for server in free for path in server._paths() if path not in fronted]


def check_packages(need: str) -> None:
    """Checks that the packages of the app host can be imported.

    Raises:
        ValueError: names the missing packages, and ``need``, the feature that needs them.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise _options.ProgramError(
            f"{need} needs {' and '.join(_PACKAGES)}, and {' and '.join(missing)} "
            f'cannot be imported; `pip install "litplex[app]"`'
        )


def guarded_endpoints(server: Server) -> list[tuple[str, str]]:
    """Returns the paths and names of the endpoints whose models have an ``authorize``."""
    endpoints = zip(server.apis, server._paths(), server._names())
    return [(path, name) for api, path, name in endpoints if authorize_of(api)]


def shared_paths(servers: Iterable[Server]) -> set[str]:
    """Returns the paths that several endpoints have."""
    paths = [path for server in servers for path in server._paths()]
    return {path for path in paths if paths.count(path) > 1}


def events_of_requests(server: Server) -> list[str]:
    """Returns the events of requests that a callback of the server handles."""
    if not server.callbacks:
        return []
    from litplex.compat.callbacks import Callback

    def is_handled(event: str) -> bool:
        default = getattr(Callback, event)
        return not all(is_method_of(getattr(each, event), default) for each in server.callbacks)

    return list(filter(is_handled, _REQUEST_EVENTS))


def _needs(server: Server) -> Iterator[str]:
    if guarded_endpoints(server):
        yield "`authorize`"
    if server.middlewares:
        yield "`middlewares`"
    if server._app is not None:
        yield "`server.app`"
    for event in events_of_requests(server):
        yield f"`{event}` of a callback"
