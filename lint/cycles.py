"""Finds circles of files that import each other, in each Rust crate and in the Python package.

Two files may import each other; larger circles are refused. `KNOWN` has the sizes of those that
exist. It can only shrink: the check fails when circles grow, and when they are smaller than listed.
Usage: `python lint/cycles.py`, with `-v` for the imports of each circle.

A re-export is no import: an import through it counts for the file that defines the name. Rust test
modules are not counted.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = "python/litplex"
ALLOWED = 2

# For each crate or package the numbers of files in its circles of more than two, largest first.
KNOWN = {}

_COMMENT = re.compile(r"//[^\n]*")
_TESTS = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ \{.*", re.S)
_USE = re.compile(r"(?P<pub>pub(?:\([^)]*\))?\s+)?\buse\s+(?P<tree>[^;]+);")
_PATH = re.compile(r"(?<![\w:$])(\w+)((?:::\w+)+)")


# A graph maps each file to the files whose names it imports.


def rust_graph(crate):
    """Returns the import graph of the crate in this folder."""
    modules = {}
    for file in sorted((crate / "src").rglob("*.rs")):
        parts = file.relative_to(crate / "src").with_suffix("").parts
        modules[parts[:-1] if parts[-1] in {"lib", "main", "mod"} else parts] = file
    sources = {
        module: _RustFile(module, file.read_text("utf-8"), modules)
        for module, file in modules.items()
    }
    name = {module: file.relative_to(crate).as_posix() for module, file in modules.items()}
    return {
        name[module]: {
            name[target]
            for path in source.imports
            if (target := _resolve(path, sources)) not in (None, module)
        }
        for module, source in sources.items()
    }


class _RustFile:
    """The paths that a module imports, and the names that it binds to paths."""

    def __init__(self, module, text, modules):
        self.module, self.modules = module, modules
        self.imports, self.bindings = [], {}
        text = _TESTS.sub("", _COMMENT.sub("", text))
        for use in _USE.finditer(text):
            for segments, alias in _leaves(use["tree"]):
                path = self._absolute(segments)
                if path is None:
                    continue
                self.bindings.setdefault(alias, path)
                if not use["pub"]:
                    self.imports.append(path)
        for match in _PATH.finditer(_USE.sub("", text)):
            path = self._absolute([match[1], *match[2].strip(":").split("::")])
            if path is not None:
                self.imports.append(path)

    def _absolute(self, segments):
        """Returns the path from the root of the crate; `None` for other crates' paths."""
        base, rest = self.module, list(segments)
        if rest[0] == "crate":
            base, rest = (), rest[1:]
        elif rest[0] in {"self", "super"}:
            while rest and rest[0] in {"self", "super"}:
                base = base[:-1] if rest.pop(0) == "super" else base
        elif (*base, rest[0]) not in self.modules:
            return None
        return (*base, *rest)


def _leaves(tree):
    """Returns the paths of a `use` tree, each with the name that it binds."""
    tree = " ".join(tree.split())
    head, brace, rest = tree.partition("{")
    prefix = [part for part in head.replace(" ", "").split("::") if part]
    if not brace:
        path, _, alias = tree.partition(" as ")
        segments = [part for part in path.replace(" ", "").split("::") if part]
        return [(segments, alias or segments[-1])]
    found, depth, start, body = [], 0, 0, rest[: rest.rindex("}")]
    for place, sign in enumerate(body + ","):
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 0:
            if body[start:place].strip():
                found.append(body[start:place].strip())
            start = place + 1
    return [
        (
            [*prefix, *segments] if segments != ["self"] else prefix,
            prefix[-1] if alias == "self" else alias,
        )
        for part in found
        for segments, alias in _leaves(part)
    ]


def _resolve(path, sources, seen=()):
    """Returns the module that defines what a path names, through re-exports."""
    module = ()
    if () not in sources:
        return None
    for place, segment in enumerate(path):
        if (*module, segment) in sources:
            module = (*module, segment)
            continue
        bound = sources[module].bindings.get(segment)
        if bound is None or bound in seen or bound == path:
            return module
        return _resolve((*bound, *path[place + 1 :]), sources, (*seen, path))
    return module


def python_graph(package):
    """Returns the import graph of the Python package in this folder."""
    files = {}
    for file in sorted(package.rglob("*.py")):
        parts = (package.name, *file.relative_to(package).with_suffix("").parts)
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    imports = {name: [*_python_imports(name, file, files)] for name, file in files.items()}
    bindings = {
        name: {alias: target for target, alias in imports[name]}
        for name, file in files.items()
        if file.name == "__init__.py"
    }
    graph = {}
    for name, file in files.items():
        targets = {_resolve_python(target, files, bindings) for target, _ in imports[name]}
        is_face = file.name == "__init__.py"
        graph[_relative(file, package)] = (
            set()
            if is_face
            else {_relative(files[target], package) for target in targets - {None, name}}
        )
    return graph


def _relative(file, package):
    return file.relative_to(package).as_posix()


def _python_imports(name, file, files):
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            for alias in node.names:
                yield f"{base}.{alias.name}", alias.asname or alias.name


def _resolve_python(path, files, bindings, seen=()):
    """Returns the module that defines what a dotted path names, through `__init__` files."""
    if path in files:
        return path
    module, _, attribute = path.rpartition(".")
    if not module or path in seen:
        return None
    target = bindings.get(module, {}).get(attribute)
    if target is not None:
        return _resolve_python(target, files, bindings, (*seen, path))
    return module if module in files else _resolve_python(module, files, bindings, seen)


def circles(graph):
    """Returns the circles of more than `ALLOWED` files, largest first."""
    reach = {file: _reachable(file, graph) for file in graph}
    found = {frozenset(other for other in reach[file] if file in reach[other]) for file in graph}
    return sorted(
        (sorted(circle) for circle in found if len(circle) > ALLOWED),
        key=lambda circle: (-len(circle), circle),
    )


def _reachable(start, graph):
    seen, todo = set(), [start]
    while todo:
        for target in graph[todo.pop()] - seen:
            seen.add(target)
            todo.append(target)
    return seen


def verdict(place, found, known):
    """Returns a description of new circles of a crate or package; `None` if they are as known."""
    sizes = [len(circle) for circle in found]
    if sizes == known:
        return None
    if sum(sizes) <= sum(known) and max(sizes, default=0) <= max(known):
        return f"{place}: the circles have shrunk to {sizes}: set KNOWN in lint/cycles.py to that"
    listed = "\n".join(f"  {len(circle)} files: {', '.join(circle)}" for circle in found)
    return f"{place}: files import each other in a circle (known: {known}):\n{listed}"


def graphs(root):
    """Returns the import graph of every crate and of the Python package."""
    crates = sorted(path.parent for path in (root / "crates").glob("*/src"))
    found = {crate.relative_to(root).as_posix(): rust_graph(crate) for crate in crates}
    return {**found, PYTHON: python_graph(root / PYTHON)}


def main(arguments):
    """Prints the new circles and returns the number of crates and packages that have any."""
    wrong = []
    for place, graph in graphs(ROOT).items():
        found = circles(graph)
        wrong += filter(None, [verdict(place, found, KNOWN.get(place, []))])
        if "-v" in arguments:
            for circle in found:
                print(
                    place,
                    *(
                        f"  {file} -> {', '.join(sorted(graph[file] & set(circle)))}"
                        for file in circle
                    ),
                    sep="\n",
                )
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
