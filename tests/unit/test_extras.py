"""The extras of the package: the packages of a feature, and the messages that name them."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SDK = ROOT / "python/litplex"

# What an extra brings that it does not name.
BROUGHT = {"pydantic_core": "pydantic", "starlette": "fastapi"}
# What only models bring, which use it too.
OF_MODELS = {"jax", "numpy", "onnxruntime", "tensorflow", "torch"}


def extras():
    """Returns the packages of each extra, by its name."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    found = re.findall(r"^(\w+) = \[(.*)\]$", section, re.MULTILINE)
    return {name: re.findall(r'"([\w-]+)>=[\d.]+"', packages) for name, packages in found}


def imported():
    """Returns the packages of others that the SDK imports anywhere."""
    names = set()
    for path in SDK.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    # `annotationlib` is of Python 3.14, `_sha2` of 3.12 and `_sha256` of those before; type
    # checkers alone see the last, and bring it.
    own = {"litplex", "litserve", "annotationlib", "_sha2", "_sha256", "typing_extensions"}
    return names - own - set(getattr(sys, "stdlib_module_names", ()))


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.9 does not name its own modules")
def test_every_package_that_the_sdk_imports_is_in_an_extra():
    named = {package for packages in extras().values() for package in packages}
    assert {BROUGHT.get(name, name) for name in imported() - OF_MODELS} <= named


def test_each_extra_that_is_asked_for_exists():
    known = extras()
    places = [*SDK.rglob("*.py"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")]
    asked = {
        name
        for path in [*places, ROOT / "README.md"]
        for names in re.findall(r"litplex\[([\w,]+)\]", path.read_text(encoding="utf-8"))
        for name in names.split(",")
    }
    assert asked <= set(known)
    assert {"app", "typed", "litserve"} <= asked
    assert all(known.values())


def test_the_wheel_has_them():
    try:
        found = metadata.metadata("litplex").get_all("Provides-Extra")
    except metadata.PackageNotFoundError:
        pytest.skip("litplex runs from the checkout")
    assert set(found or ()) == set(extras())
