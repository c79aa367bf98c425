"""The Python in pages and docstrings compiles, and its names exist."""

import ast
import builtins
import re
import textwrap
from pathlib import Path

import litplex as ls
import pytest
from litplex.compat import _keywords

ROOT = Path(__file__).parents[2]
SDK = ROOT / "python/litplex"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples/README.md"]

# What pieces of programs leave to their readers: the imports, and models of their own.
LEFT_OUT = {
    "compound.md": {"Ask", "image", "self"},
    "middleware.md": {"OcrAPI"},
    "python.md": {"ChatAPI"},
    "_onnxruntime.py:onnxruntime_options": {"onnxruntime"},
    "_start.py:start": {"EmbeddingAPI", "httpx"},
}

KEYWORDS = {
    "LitServer": {"path", "spec", *_keywords.LitServerOptions.__annotations__},
    "run_servers": {"host", "port", *_keywords.RunOptions.__annotations__},
    "start": {"host", "port", "ready_timeout", *_keywords.RunOptions.__annotations__},
}


def blocks_of_pages():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 2
            yield pytest.param(page.name, match[1], id=f"{page.name}:{line}")


def docstrings():
    """Yields the public docstrings of the SDK, each with its place."""
    for path in sorted(SDK.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text:
                name = getattr(node, "name", "module")
                yield f"{path.relative_to(SDK)}:{name}", text


def blocks_of_docstrings():
    for place, text in docstrings():
        for match in re.finditer(r"::\n\n((?:    .*\n?|\n)+)", text):
            yield pytest.param(place, textwrap.dedent(match[1]), id=place)


BLOCKS = [*blocks_of_pages(), *blocks_of_docstrings()]


@pytest.mark.parametrize(("place", "block"), BLOCKS)
def test_python_in_the_documentation_names_what_there_is(place, block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and name_of(node.value) in ("ls", "litplex"):
            assert hasattr(ls, node.attr), f"there is no ls.{node.attr}"
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in KEYWORDS:
            given = {keyword.arg for keyword in node.keywords if keyword.arg}
            assert given <= KEYWORDS[node.func.attr]  # type: ignore[attr-defined]
    assert free_names(tree) - LEFT_OUT.get(place, set()) <= {"ls"}


def name_of(node):
    return node.id if isinstance(node, ast.Name) else None


def free_names(tree):
    """Returns the names that a program uses and does not make."""
    used: set[str] = set()
    made = {*dir(builtins), "__name__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            made |= {(each.asname or each.name).partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            made.add(node.name)
    return used - made


def test_pages_name_what_the_package_has():
    for page in PAGES:
        for name in re.findall(r"`ls\.([A-Za-z]\w*)[`(.]", page.read_text(encoding="utf-8")):
            assert hasattr(ls, name), (page.name, name)


def test_docstrings_refer_to_what_there_is():
    """As in ``:class:`~litplex.Form` ``."""
    hooks = {*dir(ls.LitAPI), *dir(ls.ContinuousAPI), *dir(ls.RunningServer)}
    for place, text in docstrings():
        for target in re.findall(r":(?:class|func|meth|data|attr):`~?([\w.]+)`", text):
            known = {*ls._MODULES, *dir(ls), *hooks, *names_in(place.partition(":")[0])}
            assert target.rpartition(".")[2] in known, (place, target)


def names_in(module):
    tree = ast.parse((SDK / module).read_text(encoding="utf-8"))
    fields = ("name", "attr", "id", "asname")
    return {getattr(node, field, None) for node in ast.walk(tree) for field in fields}
