"""Files of the repository install and build only packages that a lock names."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = runpy.run_path(str(ROOT / "requirements/lock.py"))["LOCKS"]
FOLDERS = ("requirements", "tests", "examples", "bench")


def is_script(path):
    return path.is_file() and path.suffix in ("", ".py", ".sh") and path.parts[-2] != "data"


SCRIPTS = [
    *(ROOT / name for name in ("Makefile", ".ci/run", "fuzz/run", "requirements/lock.py")),
    *filter(is_script, sorted((ROOT / "examples/demo").iterdir())),
    *filter(is_script, sorted((ROOT / "bench").rglob("*"))),
]

# The only forms of a lock's lines.
PINNED = r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)( ; [^\\]+)?( --hash=sha256:[0-9a-f]{64})+"
ASKED = r"(?P<name>[A-Za-z0-9._-]+)(\[[\w,-]+\])?(==(?P<version>[^ ;]+))?( ; .*)?"
PIP = r"\bpip[\"})]*( -[\w-]+)* (install|download|wheel)\b"
CARGO = r"\bcargo (build|test|run|clippy|doc|bench|check|install)\b"
OTHERS = r"\b(pipx|uvx|npm|uv (pip install|tool|run|sync))\b"


def lines_of(path):
    """Yields the lines, whole where they go on in the next one, without comments."""
    text = re.sub(r"\s*\\\n\s*", " ", path.read_text(encoding="utf-8"))
    for line in text.splitlines():
        line = re.sub(r"(^|\s+)#.*", "", line).strip()
        if line:
            yield line


def commands_of(path):
    """Yields the lines, with the arguments of a list of Python as a shell would have them."""
    for line in lines_of(path):
        yield re.sub(r"[\"',]", "", line) if path.suffix == ".py" else line


def asked_by(path):
    """Yields the requirements of an input, and of the inputs that it includes."""
    for line in lines_of(path):
        if line.startswith("-r "):
            yield from asked_by(path.parent / line[3:])
        else:
            yield re.fullmatch(ASKED, line)


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned_by(lock):
    """Returns the names and versions that a lock has; fails where it has anything else."""
    pins = set()
    for line in lines_of(lock):
        pin = re.fullmatch(PINNED, line)
        assert pin, f"{lock.relative_to(ROOT)}: no version with hashes: {line[:100]}"
        pins.add((pin["name"], pin["version"]))
    return pins


def test_every_input_is_locked_by_make_lock():
    found = {
        str(path.relative_to(ROOT).with_suffix(""))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.in")
    }
    # It is a part of the others.
    assert found - {"bench/requirements/w6"} == set(LOCKS)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_versions_with_hashes_alone_and_all_that_was_asked(name):
    pins = pinned_by(ROOT / f"{name}.txt")
    names = {name for name, _ in pins}
    for asked in asked_by(ROOT / f"{name}.in"):
        if asked["version"]:
            assert (normal(asked["name"]), asked["version"]) in pins, "run `make lock`"
        assert normal(asked["name"]) in names, "run `make lock`"


def test_pip_builds_the_wheel_with_the_locked_packages():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    requires = re.search(r"^requires = \[(.*)\]$", text, re.MULTILINE)
    assert requires
    exact = set(re.findall(r"\"([\w-]+)==([\w.]+)", requires[1]))
    assert exact == pinned_by(ROOT / "requirements/build.txt")
    assert len(exact) == requires[1].count('"') / 2
    assert exact <= pinned_by(ROOT / "tests/requirements.txt"), "`make python` builds with these"


def test_pip_is_called_with_hashes_or_for_our_own_wheel():
    calls = []
    for path in SCRIPTS:
        for line in commands_of(path):
            if re.search(PIP, line):
                calls.append(line)
                hashed = "--require-hashes" in line and "--only-binary :all:" in line
                assert hashed or {"--no-deps", "--no-index"} <= set(line.split()), (path, line)
            assert not re.search(OTHERS, line), (path, line)
    assert len(calls) > 5


def test_the_demo_calls_pip_with_hashes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples/demo"))
    prepare = runpy.run_path(str(ROOT / "examples/demo/prepare.py"))
    for name in ("prepare", "console"):
        sys.modules.pop(name, None)
    command = prepare["pip"]("install", "--requirement", "x")
    assert {"--require-hashes", "--only-binary"} <= set(command)
    source = (ROOT / "examples/demo/prepare.py").read_text(encoding="utf-8")
    assert len(re.findall(r"\bpip\(\"", source)) == source.count("stage.run(pip(")


def test_cargo_is_called_with_the_lock():
    calls = [
        (path, line)
        for path in SCRIPTS
        for line in commands_of(path)
        if re.search(CARGO, line) and not re.search(r"cargo \w+ --help", line)
    ]
    assert len(calls) > 8
    for path, line in calls:
        assert "--locked" in line, (path, line)
    assert "maturin build --locked" in (ROOT / "Makefile").read_text(encoding="utf-8")
