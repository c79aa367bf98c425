"""Decides whether the bodies of functions are all that changed in the files of a program.

A pure comparison of texts, which says "not safe" in doubt. What a running program has computed from
its code when it was loaded must not depend on what changed: modules and classes are made of
everything but the bodies of functions, and objects are made by ``setup``, by constructors, by the
code of modules, and by the functions that these use by name.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Union

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# Decorators that call the function anew each time and keep nothing of it.
_TRANSPARENT = {
    "staticmethod",
    "classmethod",
    "property",
    "abstractmethod",
    "contextmanager",
    "asynccontextmanager",
    "no_grad",
    "inference_mode",
    "enable_grad",
    "override",
}
# Decorators of classes that leave the methods as they are.
_PLAIN_CLASSES = {"dataclass", "final"}

# Functions that make the state of objects.
_CONSTRUCTORS = ("setup", "pre_setup")

# The hook that is called in another process.
_IN_APP_HOST = "authorize"


class NotSafe(Exception):
    """A change that needs the program to be loaded anew; the message says why, in a line."""


@dataclass
class NewCode:
    """The code of a function after a change.

    Attributes:
        before: The code before, if it had any.
        after: The code.
        node: The syntax tree.
    """

    before: CodeType | None
    after: CodeType
    node: Function

    @property
    def doc(self) -> str | None:
        """Returns the docstring."""
        return ast.get_docstring(self.node, clean=False)


@dataclass
class FileChange:
    """The functions of a file to change, by qualified name.

    Attributes:
        changed: Functions whose meaning changed.
        moved: Functions of which at most the lines changed.
        added: New functions.
        removed: The methods that the file no longer has.
    """

    changed: dict[str, NewCode] = field(default_factory=dict)
    moved: dict[str, NewCode] = field(default_factory=dict)
    added: dict[str, NewCode] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


@dataclass
class Model:
    """Facts about the running program beside its texts.

    Attributes:
        hooks: The names of methods that have a meaning for the worker.
        models: The names of the classes that derive from ``LitAPI``: only their constructors run
            when one is made.
    """

    hooks: Collection[str]
    models: Collection[str]


def compare(
    before: Mapping[str, bytes], after: Mapping[str, bytes], model: Model
) -> dict[str, FileChange]:
    """Returns what to change in each file.

    Args:
        before: The text of every file of the program, as it was loaded, by path.
        after: The new text of the files that changed.
        model: What is known beside the texts.

    Raises:
        NotSafe: a change needs more than new bodies of functions.
        SyntaxError: a new text is not Python.
    """
    # All of them first: an error in one is more to the point than what another needs.
    new = {path: _File(path, text) for path, text in after.items()}
    old = {path: _File(path, text) for path, text in before.items()}
    changes, functions = {}, []
    for path, file in new.items():
        if path not in old:
            raise NotSafe(f"{path} was not loaded before")
        changes[path], changed = _compare_file(old[path], file, model)
        functions += changed
    if functions:
        reached = _Reached(old.values(), model)
        for qualified, name, line in functions:
            if name in reached:
                raise NotSafe(f"`{qualified}` changed, and {reached.why(name)} (line {line})")
    return changes


class _File:
    """A parsed file."""

    def __init__(self, path: str, text: bytes) -> None:
        self.path = path
        self.tree = ast.parse(text, path)
        code = compile(text, path, "exec", dont_inherit=True)
        #: The functions outside of other functions, by qualified name.
        self.functions: dict[str, Function] = {}
        self.owners: dict[str, list[ast.ClassDef]] = {}
        self.twice: set[str] = set()
        for name, function, owners in _functions_in(self.tree.body, []):
            if name in self.functions:
                self.twice.add(name)
            self.functions[name], self.owners[name] = function, owners
        self.codes = dict(_codes_in(code, ""))


def _functions_in(
    body: list[Any], owners: list[ast.ClassDef]
) -> Iterator[tuple[str, Function, list[ast.ClassDef]]]:
    """Yields the functions of a module or class, those of its classes and in its `if` and `try`."""
    for statement in body:
        if isinstance(statement, _FUNCTIONS):
            name = ".".join([*(owner.name for owner in owners), statement.name])
            yield name, statement, owners
        elif isinstance(statement, ast.ClassDef):
            yield from _functions_in(statement.body, [*owners, statement])
        else:
            for inner in _bodies_of(statement):
                yield from _functions_in(inner, owners)


def _bodies_of(statement: Any) -> Iterator[list[Any]]:
    for part in ("body", "orelse", "finalbody"):
        inner = getattr(statement, part, None)
        if isinstance(inner, list):
            yield inner
    for handler in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield handler.body


def _codes_in(code: CodeType, prefix: str) -> Iterator[tuple[str, CodeType]]:
    for inner in code.co_consts:
        if isinstance(inner, CodeType) and not inner.co_name.startswith("<"):
            name = prefix + inner.co_name
            yield name, inner
            if not inner.co_flags & _IS_FUNCTION:
                yield from _codes_in(inner, name + ".")


# CO_OPTIMIZED, which the code of modules and classes does not have.
_IS_FUNCTION = 1


def _compare_file(
    old: _File, new: _File, model: Model
) -> tuple[FileChange, list[tuple[str, str, int]]]:
    """Returns the changes of a file, and the qualified name, name and line of each function whose
    meaning changed."""
    common = {name for name in new.functions if name in old.functions}
    _check_outside(old, new, common)
    change, functions = FileChange(), []
    for name, function in new.functions.items():
        if name not in common:
            change.added[name] = _added(new, name, function, model)
        elif _dump(old.functions[name]) != _dump(function):
            _check_changed(old, new, name, model)
            change.changed[name] = NewCode(old.codes[name], new.codes[name], function)
        else:
            # The same code in other lines, which tracebacks show.
            if name in old.codes and name in new.codes and name not in old.twice | new.twice:
                change.moved[name] = NewCode(old.codes[name], new.codes[name], function)
            continue
        functions.append((name, function.name, function.lineno))
    for name, function in old.functions.items():
        if name not in common:
            _check_removed(old, name, function, model)
            change.removed.append(name)
            functions.append((name, function.name, function.lineno))
    return change, functions


def _check_outside(old: _File, new: _File, common: set[str]) -> None:
    """Checks that all but the functions is the same."""
    found = _difference(old.tree.body, new.tree.body, "", common)
    if found is not None:
        owner, line = found
        what = f"class `{owner}`" if owner else "the code of the module"
        raise NotSafe(f"{what} changed (line {line})")


def _difference(
    old: list[Any], new: list[Any], owner: str, common: set[str]
) -> tuple[str, int] | None:
    """Returns the class and the line of the first difference of two bodies."""
    old = _without_functions(old, owner, common)
    new = _without_functions(new, owner, common)
    for was, now in zip(old, new):
        if _is_same_class(was, now):
            inner = f"{owner}.{now.name}" if owner else now.name
            found = _difference(was.body, now.body, inner, common)
            if found is not None:
                return found
        elif not _is_same_statement(was, now):
            return owner, now.lineno
    if len(old) == len(new):
        return None
    longer = max(old, new, key=len)
    return owner, longer[min(len(old), len(new))].lineno


def _is_same_class(was: Any, now: Any) -> bool:
    is_class = isinstance(was, ast.ClassDef) and isinstance(now, ast.ClassDef)
    return is_class and _header(was) == _header(now)


def _is_same_statement(was: Any, now: Any) -> bool:
    if isinstance(was, _FUNCTIONS) and isinstance(now, _FUNCTIONS):
        return bool(was.name == now.name)
    return _dump(was) == _dump(now) or _stubbed(was) == _stubbed(now)


def _without_functions(body: list[Any], owner: str, common: set[str]) -> list[Any]:
    """Returns a body without `pass` and the functions that only one of the two files has."""
    prefix = f"{owner}." if owner else ""
    return [
        statement
        for statement in body
        if not isinstance(statement, ast.Pass)
        and not (isinstance(statement, _FUNCTIONS) and prefix + statement.name not in common)
    ]


def _header(node: ast.ClassDef) -> str:
    parts = [*node.bases, *node.keywords, *node.decorator_list, *getattr(node, "type_params", ())]
    return node.name + "".join(map(_dump, parts)) + str(len(node.bases))


def _stubbed(statement: Any) -> str:
    """Returns the text of a statement in which functions are stubs."""
    return _dump(_Stubs().visit(ast.parse(ast.unparse(statement))))


class _Stubs(ast.NodeTransformer):
    def visit_FunctionDef(self, node: Any) -> Any:
        node.body = []
        return node

    visit_AsyncFunctionDef = visit_FunctionDef


def _dump(node: Any) -> str:
    return ast.dump(node)


def _check_changed(old: _File, new: _File, name: str, model: Model) -> None:
    was, now = old.functions[name], new.functions[name]
    at = f"(line {now.lineno})"
    if name in old.twice or name in new.twice:
        raise NotSafe(f"`{name}` changed, and is defined twice {at}")
    if type(was) is not type(now):
        raise NotSafe(f"`{name}` is `async` in only one version {at}")
    if _dump(was.args) != _dump(now.args) or _dumped(was.returns) != _dumped(now.returns):
        raise NotSafe(f"the signature of `{name}` changed {at}")
    if getattr(was, "type_params", None) or getattr(now, "type_params", None):
        raise NotSafe(f"`{name}` changed, and has type parameters {at}")
    if list(map(_dump, was.decorator_list)) != list(map(_dump, now.decorator_list)):
        raise NotSafe(f"the decorators of `{name}` changed {at}")
    if now.name in _CONSTRUCTORS or now.name == _IN_APP_HOST or _is_special(now.name):
        raise NotSafe(f"`{name}` changed {at}")
    _check_form(now, new.owners[name], name, at)
    for function in (was, now):
        if any(isinstance(node, (ast.Global, ast.Nonlocal)) for node in ast.walk(function)):
            raise NotSafe(f"`{name}` changed, and assigns to variables outside of it {at}")
    if now.name in model.hooks and ast.get_docstring(was) != ast.get_docstring(now):
        raise NotSafe(f"the docstring of the hook `{name}` changed {at}")
    before, after = old.codes[name], new.codes[name]
    kinds = 0x20 | 0x80 | 0x200  # Generators, coroutines, asynchronous generators.
    if (before.co_flags ^ after.co_flags) & kinds:
        raise NotSafe(f"`{name}` is a generator in only one version {at}")
    if before.co_freevars != after.co_freevars:
        raise NotSafe(f"`{name}` changed, and uses `super()` or `__class__` in one version {at}")


def _check_form(function: Function, owners: list[ast.ClassDef], name: str, at: str) -> None:
    """Checks that nothing keeps a copy of the code of a function."""
    for decorator in function.decorator_list:
        shown = _dotted(decorator)
        if shown.rpartition(".")[2] not in _TRANSPARENT:
            raise NotSafe(f"`{name}` changed, and has the decorator `{shown}` {at}")
    for owner in owners:
        for decorator in owner.decorator_list:
            if _dotted(decorator).rpartition(".")[2] not in _PLAIN_CLASSES:
                raise NotSafe(f"`{name}` changed, and its class has a decorator {at}")
        if owner.keywords:
            raise NotSafe(f"`{name}` changed, and its class has a metaclass or arguments {at}")


def _added(file: _File, name: str, function: Function, model: Model) -> NewCode:
    """Returns a new function, if it can be added to a running program."""
    at = f"(line {function.lineno})"
    owners = file.owners[name]
    if name in file.twice:
        raise NotSafe(f"`{name}` is new, and is defined twice {at}")
    is_hook = bool(owners) and function.name in model.hooks
    if is_hook or function.name in _CONSTRUCTORS or _is_special(function.name):
        raise NotSafe(f"`{name}` is new {at}")
    if function.decorator_list or getattr(function, "type_params", None):
        raise NotSafe(f"`{name}` is new, and has a decorator or type parameters {at}")
    _check_form(function, owners, name, at)
    defaults = [*function.args.defaults, *filter(None, function.args.kw_defaults)]
    if not all(isinstance(default, ast.Constant) for default in defaults):
        raise NotSafe(f"`{name}` is new, and has a default that is not a constant {at}")
    code = file.codes[name]
    if not set(code.co_freevars) <= {"__class__"}:
        raise NotSafe(f"`{name}` is new, and a closure {at}")
    if any(isinstance(node, (ast.Global, ast.Nonlocal)) for node in ast.walk(function)):
        raise NotSafe(f"`{name}` is new, and assigns to variables outside of it {at}")
    return NewCode(None, code, function)


def _check_removed(file: _File, name: str, function: Function, model: Model) -> None:
    at = f"(it was in line {function.lineno})"
    owners = file.owners[name]
    # Another module may have imported a function, or is about to.
    if not owners or function.name in model.hooks or _is_special(function.name):
        raise NotSafe(f"`{name}` was removed {at}")
    if name in file.twice:
        raise NotSafe(f"`{name}` was removed, and was defined twice {at}")
    _check_form(function, owners, name, at)


def _is_special(name: str) -> bool:
    """Returns whether Python itself calls a method, so that no name shows the calls."""
    return name.startswith("__") and name.endswith("__")


def _dotted(node: Any) -> str:
    """Returns the dotted name of a decorator, without its arguments."""
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def _dumped(node: Any) -> str:
    return "" if node is None else _dump(node)


class _Reached:
    """The names that the making of the program's state uses: in the code of modules and classes, in
    ``setup`` and special methods, and in the functions that these use, at any depth. A class that
    derives from one of another package is used by that package: all of its methods count."""

    def __init__(self, files: Collection[_File], model: Model) -> None:
        #: Each name with what uses it: a function, a class, or the code of a module.
        self._users: dict[str, str] = {}
        self._models = set(model.models)
        self._functions: dict[str, list[tuple[str, Function]]] = {}
        self._classes: dict[str, list[ast.ClassDef]] = {}
        self._imported_as: dict[str, set[str]] = {}
        self._todo: list[str] = []
        for file in files:
            self._collect(file)
        for file in files:
            self._add_state(file.tree.body)
            for name, function in file.functions.items():
                if function.name in _CONSTRUCTORS or _is_special(function.name):
                    self._add(function.body, f"`{name}`")
        while self._todo:
            self._follow(self._todo.pop())

    def __contains__(self, name: str) -> bool:
        return name in self._users

    def why(self, name: str) -> str:
        """Returns what uses a name, as a part of a sentence."""
        return f"{self._users[name]} uses it"

    def _collect(self, file: _File) -> None:
        for name, function in file.functions.items():
            self._functions.setdefault(function.name, []).append((name, function))
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ClassDef):
                self._classes.setdefault(node.name, []).append(node)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                for alias in node.names:
                    if alias.asname:
                        self._imported_as.setdefault(alias.asname, set()).add(alias.name)

    def _add_state(self, body: list[Any]) -> None:
        """Adds the names in the code of a module or class, but not the bases of its classes."""
        user = "the code of a module"
        for statement in body:
            if isinstance(statement, ast.ClassDef):
                self._add([*statement.decorator_list, *statement.keywords], user)
                self._add_state(statement.body)
            elif isinstance(statement, _FUNCTIONS):
                self._add([*statement.decorator_list, statement.args], user)
            elif isinstance(statement, (ast.Import, ast.ImportFrom)) or _is_all(statement):
                continue
            else:
                for inner in _bodies_of(statement):
                    self._add_state(inner)
                self._add(_without_bodies(statement), user)

    def _add(self, nodes: Iterable[Any], user: str) -> None:
        for node in nodes:
            for name in _names_in(node):
                self._use(name, user)

    def _use(self, name: str, user: str) -> None:
        if name not in self._users:
            self._users[name] = user
            self._todo.append(name)

    def _follow(self, name: str) -> None:
        for imported in self._imported_as.get(name, ()):
            self._use(imported.rpartition(".")[2], self._users[name])
        for qualified, function in self._functions.get(name, ()):
            self._add(function.body, f"`{qualified}`")
        if name in self._models:
            return
        for kind in self._classes.get(name, ()):
            bases = [_dotted(base).rpartition(".")[2] for base in kind.bases]
            for base in bases:
                self._use(base, f"`{name}`")
            if not all(base in self._classes or base in _INERT_BASES for base in bases):
                for _, function, _ in _functions_in(kind.body, []):
                    self._use(function.name, f"the base of `{name}`")


# Classes that call no method of those that derive from them.
_INERT_BASES = {"object", "ABC", "Exception", "NamedTuple", "Protocol"}


def _is_all(statement: Any) -> bool:
    """Returns whether a statement sets `__all__`, whose names are no uses."""
    targets = getattr(statement, "targets", ())
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def _without_bodies(statement: Any) -> list[Any]:
    """Returns a simple statement, or the parts of a compound one beside its bodies, such as its
    condition."""
    if not any(True for _ in _bodies_of(statement)):
        return [statement]
    parts: list[Any] = []
    for name, value in ast.iter_fields(statement):
        if name not in ("body", "orelse", "finalbody", "handlers", "cases"):
            parts.extend(value if isinstance(value, list) else [value])
    return [part for part in parts if isinstance(part, ast.AST)]


def _names_in(node: Any) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Attribute):
            yield each.attr
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            # As in `getattr(self, "predict")`.
            yield from [each.value] if each.value.isidentifier() else []
