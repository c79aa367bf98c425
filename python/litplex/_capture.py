"""Runs a script up to the call that serves, and takes the servers from that call."""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

_active = False

#: Called with the path and the text of each script that is run, if a worker keeps them.
read: Callable[[str, bytes], None] | None = None

#: The number of servers that run beside this program. A program that runs again reaches the first.
started = 0


class Captured(BaseException):
    """Carries the servers of the script; no ``except Exception`` of the script catches it."""

    def __init__(self, servers: Sequence[Any], options: dict[str, Any]) -> None:
        super().__init__("servers were captured")
        self.servers = servers
        self.options = options


def run_script(
    file: str, name: str, in_package: str | None = None
) -> tuple[Captured | None, types.ModuleType]:
    """Runs a script as the main module, up to the call that serves.

    Args:
        file: The script.
        name: Its ``__name__``: ``__main__``, or another to leave out what it guards.
        in_package: The name for ``python -m``, if the script is in a package. Default: None.

    Returns:
        The :class:`Captured` call, or None if the script ended without one, and the module.
    """
    global _active
    module = types.ModuleType(name)
    module.__file__ = file
    if in_package is not None:
        module.__spec__ = importlib.util.find_spec(in_package)
        module.__package__ = in_package.rpartition(".")[0]
    sys.modules["__main__"] = sys.modules[name] = module
    code = _code_of(file)
    _active = True
    try:
        exec(code, module.__dict__)
    except Captured as captured:
        return captured, module
    finally:
        _active = False
    return None, module


def _code_of(file: str) -> types.CodeType:
    """Returns the code of a script, also of a compiled one, as in ``python server.pyc``."""
    with open(file, "rb") as source:
        if not file.endswith(".pyc"):
            text = source.read()
            if read is not None:
                read(file, text)
            return compile(text, file, "exec")
        code: types.CodeType | None = pkgutil.read_code(source)
    if code is None:
        version = sys.version.split()[0]
        raise ImportError(f"`{file}` is compiled for another version of Python than {version}")
    return code


def take(servers: Sequence[Any], options: dict[str, Any]) -> None:
    """Raises :class:`Captured` if :func:`run_script` runs the program. Called before serving."""
    if _active:
        raise Captured(servers, options)


def prepare_path(script: dict[str, Any]) -> None:
    """Sets ``sys.argv`` and ``sys.path`` to those of the program."""
    sys.argv = list(script["argv"])
    known = set(sys.path)
    sys.path[:0] = [entry for entry in script["path"] if entry not in known]


def run_again(script: dict[str, Any]) -> Captured:
    """Runs the program up to the call that serves, and returns that call."""
    prepare_path(script)
    return run_to_call(script)


def run_to_call(script: dict[str, Any]) -> Captured:
    """Runs a script as ``__main__`` up to the call that serves, and returns that call.

    Raises:
        RuntimeError: the script ended without serving.
    """
    captured, _ = run_script(script["file"], "__main__", script.get("module"))
    if captured is None:
        raise RuntimeError(f"`{script['file']}` ended without serving when it ran again")
    return captured
