"""Sends an API instance from the program to its workers, which load it in ``_worker/_load.py``."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from litplex import _options
from litplex._api import LitAPI, authorize_of

if TYPE_CHECKING:
    from litplex._types import Server

_PACKAGE_DIRECTORIES = ("site-packages", "dist-packages")
# A model of this size is better loaded by each worker itself.
_LARGE_BYTES = 100_000_000


def source_of(api: LitAPI, server: int, index: int, path: str) -> dict[str, Any]:
    """Returns the source of an instance for the order of its workers.

    Args:
        api: The instance.
        server: The index of its server in the call that serves.
        index: Its index in that server.
        path: The path of its endpoint.

    Raises:
        ValueError: the instance can be neither pickled nor created again by a script; names the
            attribute that cannot be pickled.
    """
    program = {**script(), "server": server, "api": index, "endpoint": path}
    # A worker serves a model that has an `authorize` only if the app host calls it.
    guarded = authorize_of(api) is not None
    in_main = type(api).__module__ == "__main__"
    try:
        with _memory_file() as file:
            pickle.dump(api, file, protocol=5)
            file.flush()
            size, held = file.tell(), os.dup(file.fileno())
    except Exception as error:  # noqa: BLE001  (pickling runs user code)
        if program["file"] is None:
            raise ValueError(_why_not(api, error)) from None
        return {"kind": "script", "guarded": guarded, **program}
    if in_main and program["file"] is None:
        name = type(api).__name__
        raise ValueError(
            f"{name} cannot be sent to its workers, because it is defined where no worker can run "
            f"it again; put it into a module and import it from there"
        )
    _warn_of_size(api, size)
    path = f"/proc/{os.getpid()}/fd/{held}"
    return {"kind": "pickle", "guarded": guarded, "file": path, "script": program}


def _memory_file() -> IO[bytes]:
    """Returns a file without a name, which the system holds once for all workers."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("litplex-model"), "wb")
    import tempfile

    return tempfile.TemporaryFile()


def _warn_of_size(api: LitAPI, size: int) -> None:
    if size < _LARGE_BYTES:
        return

    def byte_size(name: str) -> int:
        value = vars(api)[name]
        return getattr(value, "nbytes", None) or sys.getsizeof(value)

    largest = max(vars(api), key=byte_size, default="its state")
    warnings.warn(
        f"{type(api).__name__} is sent to each of its workers, and has {size / 1e6:.0f} MB, most "
        f"of it in `{largest}`; load that in `setup(device)`, which runs in each worker",
        stacklevel=2,
    )


def interpreter_flags() -> list[str]:
    """Returns the flags of this interpreter's command line: ``-O``, ``-W``, ``-X`` …"""
    # multiprocessing starts its children with these; no public function returns them.
    read: Any = getattr(subprocess, "_args_from_interpreter_flags", list)
    return [flag for flag in read() if flag not in ("-i", "-v", "-q")]


def _main() -> dict[str, Any]:
    """Returns the namespace of the running program: that of its main module, or of the script that
    a profiler or a debugger runs, whose own module is the main module then."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        found = frame.f_globals
        if found.get("__name__") == "__main__" and not _is_ours(found.get("__file__")):
            return found
        frame = frame.f_back
    return vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}


def _is_ours(file: str | None) -> bool:
    return file is None or os.path.abspath(file).startswith(os.path.dirname(__file__) + os.sep)


def script() -> dict[str, Any]:
    """Describes the running program: its ``file`` is None if it cannot run again, its ``module``
    is None if it is in no package."""
    main: Any = _main()
    file = main.get("__file__")
    if not file or not os.path.isfile(file):
        file = None
    # `python -m package.module` has relative imports that a plain run would not have.
    spec: Any = main.get("__spec__")
    return {
        "file": os.path.abspath(file) if file else None,
        "module": spec.name if spec is not None and getattr(spec, "parent", None) else None,
        "path": _own_path(),
        "cwd": _working_directory(),
        "argv": sys.argv,
    }


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _own_path() -> list[str]:
    """Returns the entries of sys.path that belong to the program: those of the environment would
    leak into an endpoint that has another environment."""
    # The first entry is the directory of the program.
    first = os.path.abspath(sys.path[0] or ".") if sys.path else None
    roots = {os.path.realpath(root) for root in (sys.prefix, sys.base_prefix, sys.exec_prefix)}

    def is_own(entry: str) -> bool:
        if os.path.abspath(entry or ".") == first:
            return True
        entry = os.path.realpath(entry or ".")
        if not os.path.isdir(entry) or os.path.basename(entry) in _PACKAGE_DIRECTORIES:
            return False
        return not any(entry == root or entry.startswith(root + os.sep) for root in roots)

    return [os.path.abspath(entry or ".") for entry in sys.path if is_own(entry)]


def is_installed(file: str) -> bool:
    """Returns whether a file belongs to the environment, as the main module of a test runner."""
    file = os.path.realpath(file)
    parts = file.split(os.sep)
    scripts = os.path.realpath(sysconfig.get_path("scripts"))
    return any(name in parts for name in _PACKAGE_DIRECTORIES) or os.path.dirname(file) == scripts


def forbid_running_again(program: dict[str, Any], servers: Sequence[Server]) -> None:
    """Changes a program for the binary so that no process runs its script again.

    Raises:
        ValueError: names every part that needs the script.
    """
    found: list[str] = []
    program["program"]["file"] = None
    if program["app_host"] is not None:
        found.append(
            "an app host, which `server.app`, middlewares and `authorize` need, runs the program "
            "again, and would not come to this server; start it alone, in a file of its own"
        )
    apis = [api for server in servers for api in server.apis]
    for api, endpoint in zip(apis, program["endpoint"]):
        source = endpoint.get("source")
        if source is None:
            continue
        if source["kind"] == "script" or type(api).__module__ == "__main__":
            found.append(
                f"endpoint `{endpoint['path']}`: {type(api).__name__} cannot be sent to its "
                f"workers, which cannot run this program again; put it into a module, import it "
                f"from there, and make in `setup(device)` what cannot be pickled"
            )
        else:
            source["script"]["file"] = None
    _options.raise_all(found)


def _why_not(api: LitAPI, error: Exception) -> str:
    culprits = [name for name, value in vars(api).items() if not _pickles(value)]
    kind = type(api).__name__
    if not culprits:
        return f"{kind} cannot be sent to its workers: {error}. Define it in a module or a script"
    named = ", ".join(f"`{name}` (a {type(vars(api)[name]).__name__})" for name in culprits)
    return (
        f"{kind} cannot be sent to its workers, because {named} cannot be pickled: {error}. "
        f"Make it in `setup(device)`, which runs in each worker, instead of in `__init__`"
    )


def _pickles(value: object) -> bool:
    try:
        pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001
        return False
    return True
