"""Changes the code of functions in a running program.

A function object keeps its identity and gets new code. All that refers to it goes on to do so:
bound methods, instances, subclasses, names that other modules imported. What runs at that time ends
on the code that it began with.
"""

from __future__ import annotations

import ast
import linecache
import types
from typing import TYPE_CHECKING, Any

from litplex._api import ContinuousAPI, LitAPI
from litplex._launched.sources import modules_of_files
from litplex._worker.live.compare import Model, NotSafe, compare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from litplex._worker.live.compare import FileChange, NewCode


class Plan:
    """A checked change of the code, which has not been made.

    Args:
        before: The text of every file of the program, by path.
        after: The new text of those that changed.

    Raises:
        NotSafe: the program must be loaded anew.
        SyntaxError: a new text is not Python.
    """

    def __init__(self, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        modules = modules_of_files()
        self._codes: list[tuple[types.FunctionType, types.CodeType]] = []
        self._docs: list[tuple[types.FunctionType, Any]] = []
        self._added: list[tuple[Any, str, Any]] = []
        self._removed: list[tuple[Any, str]] = []
        self._paths = list(after)
        for path, change in compare(before, after, _model(modules)).items():
            for module in modules.get(path, ()):
                self._plan(module, change)

    def apply(self) -> None:
        """Makes the change."""
        for function, code in self._codes:
            function.__code__ = code
        for function, doc in self._docs:
            function.__doc__ = doc
        for owner, name, function in self._added:
            setattr(owner, name, function)
        for owner, name in self._removed:
            delattr(owner, name)
        for path in self._paths:
            linecache.checkcache(path)

    def _plan(self, module: Any, change: FileChange) -> None:
        for name, new in change.changed.items():
            function = _find(module, name, new.before)
            if function is None:
                raise NotSafe(f"`{name}` changed, and is not the function that the file defines")
            self._codes.append((function, new.after))
            self._docs.append((function, new.doc))
        for name, new in change.moved.items():
            function = _find(module, name, new.before)
            if function is not None:
                self._codes.append((function, new.after))
        for name, new in change.added.items():
            owner, last = _owner(module, name), name.rpartition(".")[2]
            if owner is None or hasattr(owner, last):
                raise NotSafe(f"`{name}` is new, and hides another `{last}`")
            self._added.append((owner, last, _make(module, owner, name, new)))
        for name in change.removed:
            owner, last = _owner(module, name), name.rpartition(".")[2]
            if owner is None or last not in vars(owner):
                raise NotSafe(f"`{name}` was removed, and is not in its class")
            self._removed.append((owner, last))


def _model(modules: dict[str, list[Any]]) -> Model:
    """Returns what the classes of the user's modules say about their names."""
    hooks = {name for kind in (LitAPI, ContinuousAPI) for name in dir(kind)}
    models: set[str] = set()
    for each in modules.values():
        for module in each:
            for value in list(vars(module).values()):
                # Only the type of a proxy can be read without loading its object.
                if issubclass(type(value), type) and issubclass(value, LitAPI):
                    models.update(kind.__name__ for kind in value.__mro__)
    return Model(hooks, models - {"object"})


def _owner(module: Any, name: str) -> Any:
    """Returns the module or class that defines a qualified name, or None."""
    owner = module
    for part in name.split(".")[:-1]:
        owner = vars(owner).get(part)
        if not isinstance(owner, type):
            return None
    return owner


def _find(module: Any, name: str, code: types.CodeType | None) -> Any:
    """Returns the function with this name and code, or None."""
    owner = _owner(module, name)
    value = None if owner is None else vars(owner).get(name.rpartition(".")[2])
    return next((each for each in _unwrapped(value) if each.__code__ == code), None)


def _unwrapped(value: Any) -> Iterator[types.FunctionType]:
    """Yields the functions that a value of a module or class is made of."""
    while value is not None:
        if isinstance(value, types.FunctionType):
            yield value
            value = getattr(value, "__wrapped__", None)
        elif isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, property):
            for part in (value.fget, value.fset, value.fdel):
                yield from _unwrapped(part)
            return
        else:
            return


def _make(module: Any, owner: Any, name: str, new: NewCode) -> Any:
    code, arguments = new.after, new.node.args
    cells = tuple(types.CellType(owner) for _ in code.co_freevars)
    defaults = tuple(map(ast.literal_eval, arguments.defaults))
    last = name.rpartition(".")[2]
    function = types.FunctionType(code, vars(module), last, defaults or None, cells or None)
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults)
    keywords = {arg.arg: ast.literal_eval(value) for arg, value in pairs if value is not None}
    function.__kwdefaults__ = keywords
    function.__qualname__ = name
    function.__module__ = module.__name__
    function.__doc__ = new.doc
    return function
