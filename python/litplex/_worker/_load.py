"""Brings the user's API instance into the worker process.

An order names its source in one of three forms:

``{"kind": "reference", "name": "ocr.py:OcrAPI", "args": {…}, "directory": …}``
    A class or instance in a file or module, and constructor arguments, or their JSON as a text. It
    is the only form that never runs the user's script.
``{"kind": "pickle", "script": {…}}``
    The instance itself, pickled by the parent; the pickle follows the order. The main module is
    prepared when the pickle asks for it, as ``multiprocessing`` does: it runs as ``__mp_main__``,
    so the code under ``if __name__ == "__main__"`` does not. Its definitions belong to
    ``__main__``, as in the program.
``{"kind": "script", "file": …, "module": …, "argv": […], "path": […], "cwd": …, …}``
    The script runs again as ``__main__``, up to the call that serves, and the instance is taken
    from that call: the one at the path ``endpoint``, or if several share it, the one with the
    number ``api`` of the server with the number ``server``. It always works, and it runs the
    script's top-level and guarded code, in the working directory in which the program ran first.
    Its ``module`` is its name for ``python -m`` if it is in a package, and otherwise null.

Pickles come from the parent process over an inherited descriptor, never from the network.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any

from litplex import _capture
from litplex._api import LitAPI
from litplex._launched.tracebacks import formatted, has_users_frames, summary_of
from litplex._options import ProgramError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


class WrongReference(Exception):
    """The model that an order names cannot be had; the message says all that is to be said."""


def load(source: Any, pickled: BinaryIO | None = None) -> Any:
    """Returns the API instance that the source names; ``pickled`` is the file where one is."""
    kind = source["kind"]
    if kind == "reference":
        return _load_reference(source)
    script = source if kind == "script" else source["script"]
    _capture.prepare_path(script)
    with _working_in(script.get("cwd")):
        return _load_by_running(script) if kind == "script" else _unpickle(pickled, script)


def why_not_loaded(error: BaseException) -> Any:
    """Returns why a model could not be loaded, as a sentence and a traceback. It is None where
    the sentence says all."""
    trace = formatted(error) if has_users_frames(error) else None
    if isinstance(error, WrongReference):
        return str(error), None
    if isinstance(error, ProgramError):
        return str(error), trace
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"install it for {sys.executable}, or name it in `requirements`"
        return f"there is no module `{error.name}`; {hint}", trace
    # The last line of the traceback of a `SyntaxError` lacks the file and the line.
    said = f"SyntaxError: {error}" if isinstance(error, SyntaxError) else summary_of(error)
    return f"loading it raised {said}", formatted(error)


def _unpickle(pickled: BinaryIO | None, script: dict[str, Any]) -> Any:
    try:
        return _Unpickler(pickled, script).load()
    except (AttributeError, ImportError):
        # A class that exists only under the guard, or only after it.
        if script["file"] is None:
            raise
        return _load_by_running(script)


def _load_reference(source: Any) -> Any:
    place, _, name = source["name"].rpartition(":")
    directory = source.get("directory") or os.getcwd()
    if place.endswith(".py"):
        module = _import_file(os.path.join(directory, place))
    else:
        sys.path.insert(0, directory)
        module = importlib.import_module(place)
    try:
        found = getattr(module, name)
    except AttributeError:
        raise WrongReference(f"`{place}` has no `{name}`{_hint(name, module)}") from None
    args = source.get("args") or {}
    args = json.loads(args) if isinstance(args, str) else args
    if isinstance(found, type):
        _check_args(found, args)
        return found(**args)
    if args:
        raise WrongReference(f"`args` are for a class, and `{name}` is an instance; leave them out")
    return found


def _hint(name: str, module: Any) -> Any:
    """Names the API that is meant, or those that there are."""
    models = [each for each in vars(module) if _is_model(module, each)]
    import difflib

    close = difflib.get_close_matches(name, models, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; it has {', '.join(f'`{model}`' for model in models)}" if models else ""


def _is_model(module: Any, name: str) -> bool:
    value = getattr(module, name)
    if isinstance(value, type):
        return issubclass(value, LitAPI) and value.__module__ == module.__name__
    return isinstance(value, LitAPI)


def _check_args(kind: Any, args: Any) -> None:
    """Raises a WrongReference that names the constructor arguments that are missing or unknown."""
    try:
        taken = inspect.signature(kind.__init__)
    except (TypeError, ValueError):
        return  # Its parameters are unknown.
    try:
        taken.bind(None, **args)
    except TypeError as error:
        import difflib

        names = [name for name in list(taken.parameters)[1:] if name not in ("args", "kwargs")]
        unknown = [name for name in args if name not in names]
        close = difflib.get_close_matches(unknown[0], names, n=1) if unknown else []
        hint = f"did you mean `{close[0]}`?" if close else f"it takes {', '.join(names) or 'none'}"
        raise WrongReference(f"`args` do not fit {kind.__name__}: {error}; {hint}") from None


def _import_file(path: str) -> Any:
    if not os.path.exists(path):
        raise WrongReference(f"there is no file `{path}`; correct `api`")
    if not os.access(path, os.R_OK):
        raise WrongReference(f"the user of the server may not read `{path}`; allow it (`chmod`)")
    sys.path.insert(0, os.path.dirname(path))
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _working_in(directory: str | None) -> Iterator[Any]:
    """Within it, relative paths mean what they mean in the program itself: the worker may have
    another working directory."""
    before = os.getcwd()
    if directory is not None and os.path.isdir(directory):
        os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, script: dict[str, Any]) -> None:
        super().__init__(file)
        self._script = script

    def find_class(self, module: Any, name: str) -> Any:
        if module == "__main__" and "__mp_main__" not in sys.modules:
            script = self._script
            _, main = _capture.run_script(script["file"], "__mp_main__", script.get("module"))
            _move_to_main(main, "__mp_main__")
        return super().find_class(module, name)


def _move_to_main(holder: Any, module: Any) -> None:
    """Names ``__main__`` as the module of the functions and classes that a module, or a class in
    it, defines. Process pools of joblib pickle those of ``__main__`` by value, and their processes
    know no ``__mp_main__``; processes of ``multiprocessing`` find both names."""
    for each in list(vars(holder).values()):
        each = each.__func__ if type(each) is staticmethod else each
        # Only the type of a proxy can be read without loading its object.
        is_class = issubclass(type(each), type)
        if (is_class or type(each) is types.FunctionType) and each.__module__ == module:
            with contextlib.suppress(AttributeError, TypeError):  # Its metaclass does not allow it.
                each.__module__ = "__main__"
                if is_class:
                    _move_to_main(each, module)


def _load_by_running(script: dict[str, Any]) -> Any:
    servers = _capture.run_to_call(script).servers
    at_path = [
        (number, index)
        for number, server in enumerate(servers)
        for index, path in enumerate(server._paths())
        if path == script.get("endpoint")
    ]
    place = (script["server"], script["api"])
    # The program may have changed since it was described: other endpoints may come before this one.
    if place not in at_path and at_path:
        place = at_path[0]
    return servers[place[0]].apis[place[1]]
