"""The parent's part of bringing an API instance into its workers; see ``_worker/_load.py``."""

import base64
import os
import pickle
import sys
import sysconfig

from litplex import _options
from litplex._api import authorize_of

_PACKAGE_DIRECTORIES = ("site-packages", "dist-packages")


def source_of(api, server, index):
    """Returns the source of an instance for the order of its workers.

    Args:
        api: The instance.
        server: The place of its server in the call that serves.
        index: Its place in that server.

    Raises:
        ValueError: it can be neither pickled nor made again by running a script; names the
            attribute that is in the way.
    """
    program = {**script(), "server": server, "api": index}
    # A worker serves a model that has an `authorize` only where somebody asks that.
    guarded = authorize_of(api) is not None
    in_main = type(api).__module__ == "__main__"
    try:
        data = pickle.dumps(api, protocol=4)
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
    text = base64.b64encode(data).decode()
    return {"kind": "pickle", "guarded": guarded, "data": text, "script": program}


def script():
    """Describes the program that is running: its ``file`` is None where it cannot run again, its
    ``module`` where it is in no package."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if not file or not os.path.isfile(file):
        file = None
    # `python -m package.module` has relative imports that a plain run would not have.
    spec = getattr(main, "__spec__", None)
    return {
        "file": os.path.abspath(file) if file else None,
        "module": spec.name if spec is not None and spec.parent else None,
        "path": _own_path(),
        "cwd": _working_directory(),
        "argv": sys.argv,
    }


def _working_directory():
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _own_path():
    """Returns the entries of sys.path that are the program's own: those of the environment would
    leak into an endpoint that has another one."""
    # The first is where the program lies, wherever that is.
    first = os.path.abspath(sys.path[0] or ".") if sys.path else None
    roots = {os.path.realpath(root) for root in (sys.prefix, sys.base_prefix, sys.exec_prefix)}

    def is_own(entry):
        if os.path.abspath(entry or ".") == first:
            return True
        entry = os.path.realpath(entry or ".")
        if not os.path.isdir(entry) or os.path.basename(entry) in _PACKAGE_DIRECTORIES:
            return False
        return not any(entry == root or entry.startswith(root + os.sep) for root in roots)

    return [os.path.abspath(entry or ".") for entry in sys.path if is_own(entry)]


def is_installed(file):
    """Returns whether a file is of the environment, as the main module of a test runner is."""
    file = os.path.realpath(file)
    parts = file.split(os.sep)
    scripts = os.path.realpath(sysconfig.get_path("scripts"))
    return any(name in parts for name in _PACKAGE_DIRECTORIES) or os.path.dirname(file) == scripts


def forbid_running_again(program, servers):
    """Makes what the binary is told of a program do without running that again.

    Raises:
        ValueError: names what cannot be served like that.
    """
    found = []
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


def _why_not(api, error):
    culprits = [name for name, value in vars(api).items() if not _pickles(value)]
    kind = type(api).__name__
    if not culprits:
        return f"{kind} cannot be sent to its workers: {error}. Define it in a module or a script"
    named = ", ".join(f"`{name}` (a {type(vars(api)[name]).__name__})" for name in culprits)
    return (
        f"{kind} cannot be sent to its workers, because {named} cannot be pickled: {error}. "
        f"Make it in `setup(device)`, which runs in each worker, instead of in `__init__`"
    )


def _pickles(value):
    try:
        pickle.dumps(value, protocol=4)
    except Exception:  # noqa: BLE001
        return False
    return True
