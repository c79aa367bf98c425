"""Servers, and the run of several of them as one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, Union

from litplex import (
    _capture,
    _handover,
    _hook_rules,
    _keys,
    _options,
    _signals,
    _spec_rules,
    _where,
)
from litplex._api import LitAPI, access_error, authorize_of, max_concurrency_of
from litplex._apphost import _manifest
from litplex._binary import find_binary
from litplex._pipeline import Pipeline
from litplex._profile import NATIVE, Profile
from litplex._specs import LitSpec

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from litplex._arguments import ServerArguments
    from litplex._options import Options
    from litplex.compat._keywords import LitServerOptions, RunOptions

    _Handler = Union[Callable[[int, Union[FrameType, None]], Any], int, None]

# Options that a LitAPI may have already.
_API_OPTIONS = ("max_batch_size", "batch_timeout", "stream")

# Options that only one endpoint can have.
_NAME_OPTIONS = ("name", "aliases", "default_model")

# The exit status of a server whose model could not be loaded.
_LOAD_FAILED = 3


class LitServer:
    """One endpoint, or several with the same settings.

    Args:
        api: A :class:`LitAPI`, a list of them, or the name of one: ``"ocr.py:OcrAPI"`` or
            ``"package.module:OcrAPI"``, which only its workers import. Or a :class:`Pipeline` of
            other endpoints, which has no workers.
        path: The path of the endpoint. Default: the ``api_path`` of the API.
        spec: The dialect of the one API, as ``LitAPI(spec=…)``. Default: that of the API.
        **options: Options of the endpoints; ``help(litplex.EndpointOptions)`` has all of them,
            among them ``name`` (default: the name of the class), ``workers_per_device=1`` or
            ``min_workers`` and ``max_workers``, ``accelerator="auto"``, ``devices="auto"``,
            ``timeout=30`` (seconds), ``kill_after=10`` (seconds after the timeout), ``cost`` (the
            cost of a request in a batch), ``threads`` and ``memory_limit`` of a worker, ``python``
            (another interpreter), ``requirements`` (packages of an environment that litplex
            creates), ``env`` (variables to set). It also takes the arguments of LitServe's
            ``LitServer`` (``docs/litserve.md``).

    Raises:
        ValueError: names every error and what to do.
    """

    _profile: Profile = NATIVE

    def __init__(
        self,
        api: LitAPI | Pipeline | str | Sequence[LitAPI | Pipeline | str],
        path: str | None = None,
        *,
        spec: LitSpec | None = None,
        **options: Unpack[LitServerOptions],
    ) -> None:
        # Of any type: `_errors` checks it.
        self.apis: list[Any] = list(api) if isinstance(api, (list, tuple)) else [api]
        self._directory = _directory_of_caller(self._profile)
        self._give_profile()
        found = self._take_spec(spec)
        self.path = options.pop("api_path", None) if path is None else path
        given: ServerArguments = self._profile.reads_server_arguments(options, self._paths())
        self.options = given.endpoint
        self.server_options = given.server
        self.callbacks = given.callbacks
        self.loggers = given.loggers
        self.middlewares = given.middlewares
        self.info = given.info
        self._app: Any = None
        self._active: Any = None
        self._workers = given.workers
        _options.raise_all(self._errors([*found, *given.errors]))
        for instance, where in zip(self.apis, self._paths()):
            _spec_rules.warn_of_path(instance, where, self._profile.warns_of_spec_path)
            self._prepare_model(instance)
        for where, app in (mount for logger in self.loggers for mount in logger._mounts):
            self.app.mount(where, app)

    def _give_profile(self) -> None:
        """Sets the profile of the models of a program that was written for another framework."""
        for api in self.apis:
            if self._profile is not NATIVE and isinstance(api, LitAPI):
                api._litplex_profile = self._profile

    def _prepare_model(self, api: Any) -> None:
        """Sets the attributes of an instance that its workers read."""
        if not isinstance(api, LitAPI):
            return
        api.request_timeout = self._time_to_begin()
        if self.callbacks:
            api._litserve_callbacks = self.callbacks
        if self.loggers:
            api._litserve_loggers = self.loggers

    def _take_spec(self, spec: LitSpec | None) -> list[str]:
        """Sets the spec of the API; returns the errors in it."""
        if spec is not None:
            if len(self.apis) > 1:
                return ["`spec` is for one API; give each LitAPI its own: `LitAPI(spec=…)`"]
            if not all(isinstance(api, LitAPI) for api in self.apis):
                return ["`spec` needs an instance of the API; or set it in its `__init__`"]
            for api in self.apis:
                api.spec = spec
        for api in self.apis:
            known = _spec_rules.spec_of(api)
            if known is not None:
                api.stream, api.api_path = known.stream, _spec_rules.path_of(api)
        return []

    def _errors(self, arguments: list[str]) -> list[str]:
        whose = f"endpoint `{self.path or self._api_path(*self.apis[:1])}`"
        given = self.options if self.path is None else {**self.options, "path": self.path}
        arguments = [*arguments, *_options.errors("endpoint", given)]
        found = [f"{whose}: {text}" for text in arguments]
        python = given.get("python")
        if isinstance(python, str):
            where = self._directory or os.getcwd()
            found += [f"{whose}: {text}" for text in _interpreter_errors(python, where)]
        if not self.apis:
            found.append("LitServer got an empty list; give it at least one LitAPI")
        if len(self.apis) > 1:
            found += self._errors_of_several(whose)
        if self.path is None:
            # `run` may still set options of the server, such as the paths of its routes.
            paths = self._paths()
            fixed = {**self._profile.yielded(paths), **self.server_options}
            is_fixed = self._profile.checks_paths_early
            built_in = _options.built_in_paths(fixed) if is_fixed else {}
            found += _path_errors(paths, built_in, self._profile)
        for api in self.apis:
            if isinstance(api, Pipeline):
                found += [f"{whose}: {text}" for text in self._pipeline_errors(api)]
            elif not isinstance(api, (LitAPI, str)):
                found.append(f"{whose}: `api` must be a LitAPI instance{_instead_of(api)}")
            elif isinstance(api, str) and ":" not in api:
                found.append(f'{whose}: `api` must be named like "ocr.py:OcrAPI", not "{api}"')
            elif isinstance(api, str) and (self.callbacks or self.loggers):
                name = "callbacks" if self.callbacks else "loggers"
                found.append(f"{whose}: `{name}` need an instance of the API, not its name")
            elif isinstance(api, LitAPI):
                found += [f"{whose}: {text}" for text in self._contradictions(api)]
        return found

    def _errors_of_several(self, whose: str) -> Iterator[str]:
        """Yields a sentence for each argument that only one API can have."""
        there = f"is for one API and there are {len(self.apis)}"
        if self.path is not None:
            yield f"{whose}: `path` {there}; give each LitAPI its own `api_path`"
        for name in _NAME_OPTIONS:
            if name in self.options:
                yield f"{whose}: `{name}` {there}; give each its own LitServer"

    def _pipeline_errors(self, pipeline: Pipeline) -> Iterator[str]:
        """Yields a sentence for each error in a pipeline that is known before the server starts."""
        yield from _options.json_errors("pipeline", pipeline.steps)
        for name in ("callbacks", "loggers"):
            if getattr(self, name):
                yield f"`{name}` are called by workers, and a pipeline has none; leave them out"

    def _time_to_begin(self) -> Any:
        """Returns the seconds in which a request must begin, if the option is valid."""
        return self.options.get("queue_timeout", self.options.get("timeout", 30))

    def _contradictions(self, api: LitAPI) -> Iterator[str]:
        timeout = self._time_to_begin()
        wait = self.options.get("batch_timeout", api.batch_timeout)
        are_numbers = all(isinstance(number, (int, float)) for number in (timeout, wait))
        if are_numbers and 0 < timeout < wait:
            yield (
                f"batch_timeout must be less than request_timeout: batches would wait {wait} s, "
                f"and requests {timeout} s (`timeout`)"
            )
        yield from filter(None, [access_error(api, is_guarded=True)])
        yield from _spec_rules.errors(api)
        stream = self.options.get("stream", api.stream)
        yield from _hook_rules.errors(api, stream)
        if api.spec is not None and stream != api.stream:
            yield f"`stream` must be {api.stream} with `spec`; leave it out"

    @property
    def app(self) -> Any:
        """The FastAPI app in front of the endpoints, for routes and middlewares of the program.

        It runs in a process of its own, where the program runs again up to the call that serves.
        Only programs that use it need fastapi and uvicorn.

        Raises:
            ValueError: fastapi or uvicorn is not installed.
        """
        if self._app is None:
            _manifest.check_packages("`server.app`")
            from litplex._apphost._app import make_app

            self._app = make_app(self)
        return self._app

    @property
    def active_requests(self) -> int | None:
        """The number of active requests, except those of ``/``, ``/health`` and ``/metrics``.

        Callbacks, middlewares and routes of the program read it: they run in the process that
        counts requests. None in a process that does not count.
        """
        count: int | None = getattr(self._active, "value", None)
        return count

    def run(
        self,
        host: str | None = None,
        port: int | None = None,
        **options: Unpack[RunOptions],
    ) -> None:
        """Serves this server alone, as :func:`run_servers` does."""
        run_servers(self, host=host, port=port, **options)

    def _api_path(self, api: Any = None) -> str:
        return _spec_rules.path_of(api)

    def _paths(self) -> list[str]:
        return [self.path or self._api_path(api) for api in self.apis]

    def _names(self) -> list[str]:
        """Returns the names of the endpoints."""
        return [self.options.get("name") or _default_name(api) for api in self.apis]

    def _endpoints(self, server: int) -> Iterator[dict[str, Any]]:
        """Yields the description of each endpoint for the binary; ``server`` is the index of this
        server in the program."""
        for index, (api, path) in enumerate(zip(self.apis, self._paths())):
            endpoint = {**self.options, "path": path}
            if self._directory is not None:
                endpoint["directory"] = self._directory
            if isinstance(api, Pipeline):
                yield {**endpoint, "pipeline": api.steps}
                continue
            endpoint = {"python": sys.executable, **endpoint}
            if self._workers:
                endpoint["workers_per_device"] = self._workers.get(path, 1)
            if isinstance(api, str):
                endpoint["api"] = api
                if "args" in endpoint:
                    # The server passes the text on, because its numbers do not hold all digits.
                    endpoint["args_text"] = json.dumps(endpoint["args"])
            else:
                source = _source(api, server, index, path)
                endpoint = {**_options_of(api), **endpoint, "source": source}
                endpoint["class"] = _default_name(api)
            yield endpoint


def _default_name(api: Any) -> str:
    """Returns the name of the class of an API, or what its name names in its module."""
    name: str = api.rpartition(":")[2] if isinstance(api, str) else type(api).__name__
    return name


def _interpreter_errors(python: str, directory: str) -> Iterator[str]:
    path = os.path.normpath(os.path.join(directory, python))
    if os.path.isdir(path) and os.path.exists(os.path.join(path, "bin", "python")):
        interpreter = os.path.join(python, "bin", "python")
        yield f"`python` names a directory; did you mean `{interpreter}`?"
    elif os.path.isdir(path):
        yield f"`python` names the directory `{path}`, not an interpreter"
    elif os.sep in python and not os.path.exists(path):
        yield (
            f"`python` names the interpreter `{path}`, which {_why_not_found(path)}; create the "
            f"environment or correct it"
        )


def _why_not_found(path: str) -> str:
    try:
        os.stat(path)
    except PermissionError:
        return "is in a directory that this user may not enter"
    except OSError:
        pass
    return "does not exist"


def _options_of(api: LitAPI) -> dict[str, Any]:
    values = {name: getattr(api, name, None) for name in _API_OPTIONS}
    values["max_concurrency"] = max_concurrency_of(api)
    return {name: value for name, value in values.items() if value is not None}


def _source(api: LitAPI, server: int, index: int, path: str) -> dict[str, Any]:
    try:
        return _handover.source_of(api, server, index, path)
    except ValueError as error:
        raise _options.ProgramError(f"endpoint `{path}`: {error}") from None


def _instead_of_server(given: object) -> str:
    if isinstance(given, (list, tuple)):
        return f", not a {type(given).__name__}; pass its items: `*servers`"
    if isinstance(given, LitAPI):
        return f", not a LitAPI; write `LitServer({type(given).__name__}())`"
    return _instead_of(given)


def _instead_of(api: object) -> str:
    if isinstance(api, type):
        return f", not a class; write `{api.__name__}()`"
    return f", not {type(api).__name__}"


def run_servers(
    *servers: LitServer,
    host: str | None = None,
    port: int | None = None,
    **options: Unpack[RunOptions],
) -> None:
    """Serves all endpoints of all servers on one socket, until Ctrl-C or SIGTERM.

    Args:
        *servers: :class:`LitServer` instances; each keeps its own settings.
        host: The address to listen on. Default: ``127.0.0.1``, which only this machine reaches.
        port: The port; 0 takes a free one. Default: 8000.
        **options: ``grace``, ``http_threads``, …: ``help(litplex.ServerOptions)`` lists all.

    Raises:
        ValueError: names every error and what to do, before any process starts.
        SystemExit: the server failed; has its exit status.
        RuntimeError: a model did not load, in a program that imports ``litserve``.
    """
    if _is_imported_by_child():
        return
    _open_standard_streams()
    given, wants_client = checked_options(servers, host, port, options)
    _capture.take(servers, given)
    profile = profile_of(servers)
    program = program_of(servers, given, _manifest.manifest_of(servers, given))
    if _capture.started:
        _handover.forbid_running_again(program, servers)
    if wants_client:
        write_client(servers, given)
    call_back(servers, "on_server_start")
    try:
        status = _serve(program, profile)
    finally:
        call_back(servers, "on_server_end")
    if status < 0:
        print(f"error: the litplex server was killed by signal {-status}", file=sys.stderr)
        raise SystemExit(128 - status)
    if status == _LOAD_FAILED and profile.load_failure is not None:
        raise RuntimeError(profile.load_failure)
    if status != 0:
        raise SystemExit(status)


def checked_options(
    servers: Sequence[LitServer], host: str | None, port: int | None, options: Mapping[str, Any]
) -> tuple[dict[str, Any], bool]:
    """Returns the options of the server, and whether to write a file for clients.

    Raises:
        ValueError: names every error.
    """
    profile = profile_of(servers)
    given = {"host": host, "port": port, **options}
    given = {name: value for name, value in given.items() if value is not None}
    wants_client = given.pop("generate_client_file", profile.writes_client)
    given, found = profile.reads_run_arguments(given)
    given = {**profile.yielded(_all_paths(servers)), **given}
    _options.raise_all([*found, *_errors(servers, given, profile)])
    given = {**shared_options(servers, profile), **given}
    directory = _directory_of_caller(profile)
    if directory is not None:
        given["directory"] = directory
    return given, wants_client


def _is_imported_by_child() -> bool:
    """Returns whether this is a child process of multiprocessing, or of a similar library, which
    imports the program to find a function; prints what to do."""
    module = sys.modules.get("multiprocessing.process")
    process: Any = module.current_process() if module is not None else None
    if not getattr(process, "_inheriting", False):
        return False
    # Only the first process of a pool prints.
    if process.name.endswith("-1") or "-" not in process.name:
        print(
            "a child process of multiprocessing imports this program, and does not serve; "
            'put the call that serves under `if __name__ == "__main__":`',
            file=sys.stderr,
            flush=True,
        )
    return True


def _open_standard_streams() -> None:
    """Opens the standard streams that are closed, as after ``python server.py >&-``. Otherwise the
    next file that is opened gets the number of one, and the output of the program."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _all_paths(servers: Iterable[Any]) -> list[str]:
    return [path for each in servers if isinstance(each, LitServer) for path in each._paths()]


def profile_of(servers: Sequence[Any]) -> Profile:
    """Returns the profile of servers that run together: that of the first one."""
    return next((each._profile for each in servers if isinstance(each, LitServer)), NATIVE)


def _directory_of_caller(profile: Profile) -> str | None:
    return _where.directory_of_caller() if profile.resolves_paths_by_file else None


def shared_options(servers: Sequence[LitServer], profile: Profile) -> dict[str, Any]:
    """Returns the options of the whole server that its servers have, over the defaults of the
    profile."""
    merged: dict[str, Any] = {**profile.server_defaults}
    for server in servers:
        merged.update(server.server_options)
    return merged


def write_client(servers: Sequence[LitServer], options: Options) -> None:
    """Writes ``client.py``, which calls the first endpoint, to the working directory."""
    from litplex.compat import _client

    scheme = "https" if "tls_cert" in options else "http"
    base = f"{scheme}://127.0.0.1:{options.get('port', 8000)}"
    _client.write_client(os.getcwd(), base + servers[0]._paths()[0])


def call_back(servers: Sequence[LitServer], event: str) -> None:
    """Calls the method of an event of the servers on all callbacks."""
    if any(server.callbacks for server in servers):
        from litplex.compat.callbacks import CallbackRunner

        for server in servers:
            # Otherwise the app host calls them: they may share state with events of requests.
            if not _manifest.events_of_requests(server):
                CallbackRunner(server.callbacks).trigger_event(event, litserver=server)


def _errors(servers: Sequence[Any], options: Options, profile: Profile) -> list[str]:
    found = [f"run_servers: {text}" for text in _options.errors("server", options)]
    if not servers:
        found.append("run_servers got no LitServer; give it at least one")
    paths: list[str] = []
    combined = dict(options)
    for server in servers:
        if not isinstance(server, LitServer):
            found.append(f"run_servers takes LitServer instances{_instead_of_server(server)}")
            continue
        paths += server._paths()
        found += _options.errors("server", server.server_options)
        found += _conflicts(server.server_options, combined)
    if len(servers) > 1:
        found += _tool_errors(servers)
    found += _name_errors(servers)
    return [*found, *_path_errors(paths, _options.built_in_paths(combined), profile)]


def _tool_errors(servers: Sequence[Any]) -> Iterator[str]:
    """Yields a sentence for each endpoint whose ``authorize`` a call of its tool would not pass."""
    for server in filter(lambda server: isinstance(server, LitServer), servers):
        for api, path in zip(server.apis, server._paths()):
            if authorize_of(api) and api.mcp is not None:
                yield (
                    f"endpoint `{path}`: `mcp` and `authorize` go together where one LitServer has "
                    f"all endpoints, because all tools are behind one path"
                )


def _name_errors(servers: Sequence[Any]) -> Iterator[str]:
    """Yields a sentence for each name or alias that several endpoints have, and for each path with
    several defaults."""
    servers = [server for server in servers if isinstance(server, LitServer)]
    paths = _all_paths(servers)
    called: dict[str, list[tuple[int, str]]] = {}
    defaults: dict[str, list[str]] = {}
    for number, (server, path, name) in enumerate(_endpoints_of(servers)):
        is_shared = paths.count(path) > 1 and _may_be_shared(path, server._profile)
        own = [name] if is_shared or "name" in server.options else []
        for each in (*own, *server.options.get("aliases", ())):
            called.setdefault(each, []).append((number, path))
        if server.options.get("default_model", False):
            defaults.setdefault(path, []).append(name if is_shared else path)
    for name, found in sorted(called.items()):
        if len(found) > 1:
            yield _shared_name(name, *found[:2])
    for path, labels in sorted(defaults.items()):
        if len(labels) > 1:
            yield (
                f"endpoints `{labels[0]}` and `{labels[1]}` at `{path}` both have `default_model`; "
                f"set it for one of them"
            )


def _shared_name(name: str, first: tuple[int, str], second: tuple[int, str]) -> str:
    if first == second:
        return f"endpoint `{first[1]}`: `{name}` is given twice in `name` and `aliases`"
    if first[1] == second[1]:
        return (
            f"two endpoints at `{first[1]}` are called `{name}`; give each its own `name`, or "
            f"remove the alias"
        )
    return (
        f"endpoints `{first[1]}` and `{second[1]}` are both called `{name}`; give one of them "
        f"another `name`, or remove the alias"
    )


def _endpoints_of(servers: Iterable[LitServer]) -> Iterator[tuple[LitServer, str, str]]:
    """Yields the server, the path and the name of each endpoint."""
    for server in servers:
        for path, name in zip(server._paths(), server._names()):
            yield server, path, name


def _conflicts(options: Options, combined: dict[str, Any]) -> Iterator[str]:
    """Yields a sentence for each option with another value in ``combined``; adds the others to
    it."""
    for name, value in options.items():
        if combined.setdefault(name, value) != value:
            yield (
                f"conflicting values for the server option `{name}`: {combined[name]!r} and "
                f"{value!r}; give it once"
            )


def _may_be_shared(path: str, profile: Profile) -> bool:
    return profile.shares_paths and _options.can_be_shared(path)


def _path_errors(paths: list[str], built_in: Mapping[str, str], profile: Profile) -> Iterator[str]:
    name = profile.name
    for path in dict.fromkeys(paths):
        if path in built_in:
            yield f"api_path {path} is already in use by {name} {built_in[path]}; choose another"
        elif paths.count(path) > 1 and not _may_be_shared(path, profile):
            yield (
                f"api_path {path} is already in use by another endpoint: "
                f"{paths.count(path)} endpoints have this path; give each its own"
            )


def program_of(
    servers: Sequence[LitServer],
    options: dict[str, Any],
    app_host: dict[str, Any] | None = None,
    profile: Profile | None = None,
) -> dict[str, Any]:
    """Returns the program that the binary serves, as plain data.

    Args:
        servers: The servers of the program.
        options: The options of the whole server.
        app_host: The manifest of the app host. Default: None, no app host.
        profile: The profile of the server. Default: that of the first of the servers.
    """
    profile = profile_of(servers) if profile is None else profile
    return {
        **options,
        "presentation": profile.presentation(servers[0], options),
        "app_host": app_host,
        "python_flags": _handover.interpreter_flags(),
        "sdk": os.path.dirname(os.path.abspath(__file__)),
        "program": {"python": sys.executable, **_handover.script()},
        "endpoint": [
            endpoint
            for number, server in enumerate(servers)
            for endpoint in server._endpoints(number)
        ],
    }


def _serve(program: dict[str, Any], profile: Profile) -> int:
    """Runs the binary until it ends; returns its exit status."""
    with _ForwardSignals() as forwarded:
        child = start_binary(profile)
        forwarded.forward_to(child)
        hand_over(program, child)
        status = child.wait()
    if status < 0:
        _kill_session(child.pid)
    # A signal that arrives before the binary handles signals ends it: no request is in flight yet.
    return 0 if -status in forwarded.sent else status


def _kill_session(number: int) -> None:
    """Kills the processes of a session, which models started and a killed server left behind.

    The kernel ends only the workers. Without ``/proc``, this does nothing.
    """
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc"):
            # A process may end at any time.
            with contextlib.suppress(OSError, ValueError):
                if os.getsid(int(entry)) == number:
                    os.kill(int(entry), signal.SIGKILL)


def start_binary(
    profile: Profile, variables: dict[str, str] | None = None, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Starts the binary, which waits for its program.

    It has a session of its own, so that Ctrl-C in a terminal reaches it once, through this process.
    """
    if sys.stdout is not None:  # None if the program was started with a closed one.
        sys.stdout.flush()
    command = [find_binary(), "serve", "--program"]
    env = {**_keys.environment(profile), **(variables or {})}
    sockets = _given_sockets()
    if sockets:
        # They are for the binary, and the number is that of this process.
        del env["LISTEN_PID"]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
        env=env,
        pass_fds=sockets,
    )


def _given_sockets() -> range:
    """Returns the descriptors of the sockets that systemd has passed to this process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return range(0)
    return range(3, 3 + int(os.environ.get("LISTEN_FDS", "0")))


def hand_over(program: dict[str, Any], child: subprocess.Popen[bytes]) -> None:
    """Writes the program to the standard input of the binary. The binary drains when that closes,
    at the end of this process."""
    order_pipe = child.stdin
    assert order_pipe is not None
    # The binary may end early; its exit status has the result.
    with contextlib.suppress(BrokenPipeError):
        text = json.dumps(program, allow_nan=False, separators=(",", ":"))
        order_pipe.write(text.encode() + b"\n")
        order_pipe.flush()


class _ForwardSignals:
    """A context in which signals that would end this process are forwarded to the child.

    Signals that arrive before the child exists are kept. A repetition of the first signal, as a
    service manager sends it to the process and to its group, does not end a program whose server
    has stopped in the meantime.
    """

    #: The seconds in which the server treats a second signal as a repetition.
    _REPEATS = 0.5

    #: The seconds that a shell which ends has to close its terminal, after it sends SIGHUP.
    _HANGUP = 0.3

    def __init__(self) -> None:
        self.sent: set[int] = set()
        self._had_terminal = _has_terminal()
        self._repeats_until = 0.0
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._before: dict[int, _Handler] = {}

    def forward_to(self, child: subprocess.Popen[bytes]) -> None:
        """Sets the child, and forwards the kept signals to it."""
        self._child = child
        while self._early:
            self._send(self._early.pop(0))

    def __enter__(self) -> _ForwardSignals:
        for number in self._signals():
            try:
                self._before[number] = _signals.handle(number, self._forward)
            except ValueError:
                break  # Only the main thread handles signals.
        return self

    def _signals(self) -> Iterator[int]:
        """Yields the signals at which the child drains or reloads
        (`crates/server/src/signals.rs`), and the one at which it is upgraded."""
        yield from (signal.SIGINT, signal.SIGTERM)
        # A program may use it for itself.
        if signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL:
            yield signal.SIGUSR2
        for number in (signal.SIGHUP, signal.SIGQUIT):
            # `nohup`, and shells for jobs in the background, ignore them.
            if signal.getsignal(number) != signal.SIG_IGN:
                yield number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            repeats = self._repeats_until > 0 and number != signal.SIGUSR2
            _signals.release(number, self._ignore_repeats if repeats else handler)

    def _upgrade(self) -> None:
        # A server that does not exist yet starts with the present code.
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGUSR2)

    def _ignore_repeats(self, number: int, _: FrameType | None) -> None:
        if time.monotonic() >= self._repeats_until:
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)

    def _forward(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGUSR2:
            self._upgrade()
            return
        if number == signal.SIGHUP:
            # The server has a session of its own, and cannot see that the terminal closes. From an
            # operator, the signal reloads the program.
            if self._had_terminal:
                time.sleep(self._HANGUP)
            if not self._had_terminal or _has_terminal():
                self._send(number)
                return
            number = signal.SIGTERM
        self._repeats_until = self._repeats_until or time.monotonic() + self._REPEATS
        self._send(number)

    def _send(self, number: int) -> None:
        if self._child is None:
            self._early.append(number)
        elif self._child.poll() is None:
            self._child.send_signal(number)
            self.sent.add(number)


def _has_terminal() -> bool:
    """Returns whether this process has a controlling terminal, which exists."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
