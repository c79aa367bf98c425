"""The parent's part of bringing an API instance into its workers; see ``_worker/_load.py``."""

import base64
import os
import pickle
import sys


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
    script = _script(server, index)
    try:
        data = pickle.dumps(api, protocol=4)
    except Exception as error:  # noqa: BLE001  (pickling runs user code)
        if script is None:
            raise ValueError(_why_not(api, error)) from None
        return {"kind": "script", **script}
    return {"kind": "pickle", "data": base64.b64encode(data).decode(), "script": script}


def _script(server, index):
    """Describes the script that is running, if it is one that can run again."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    # `python -m package.module` has relative imports that a plain run would not have.
    in_package = getattr(getattr(main, "__spec__", None), "parent", None)
    if not file or not os.path.isfile(file) or in_package:
        file = None
    path = _own_path()
    base = {"path": path, "argv": sys.argv, "server": server, "api": index}
    return {"file": os.path.abspath(file), **base} if file else None


def _own_path():
    """Returns the entries of sys.path that are the program's own: those of the environment would
    leak into an endpoint that has another one."""
    roots = {os.path.realpath(root) for root in (sys.prefix, sys.base_prefix, sys.exec_prefix)}

    def is_own(entry):
        entry = os.path.realpath(entry or ".")
        return os.path.isdir(entry) and not any(
            entry == root or entry.startswith(root + os.sep) for root in roots
        )

    return [os.path.abspath(entry or ".") for entry in sys.path if is_own(entry)]


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
