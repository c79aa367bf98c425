"""Checks the wording and the names that docs/STYLE.md asks for.

The check covers the folders in `CLEAN`. Add a folder once its names and prose follow STYLE.md; the
list only grows. Usage: `python lint/style.py`.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Folders and files whose names and prose follow docs/STYLE.md.
CLEAN = [
    "ARCHITECTURE.md",
    "bench",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "crates/access",
    "crates/admin",
    "crates/calls",
    "crates/cli",
    "crates/config",
    "crates/core",
    "crates/devices",
    "crates/dialects",
    "crates/dirs",
    "crates/http",
    "crates/http-core",
    "crates/litplex",
    "crates/metrics",
    "crates/pages",
    "crates/residency",
    "crates/scheduler",
    "crates/server",
    "crates/supervisor",
    "crates/tls",
    "crates/traces",
    "crates/wire",
    "crates/workers",
    "docs",
    "examples",
    "fuzz",
    "lint",
    "python/litplex",
    "protocol",
    "README.md",
    "SECURITY.md",
    "tests",
]

# These files quote the refused phrases, or contain texts of fiction.
EXEMPT = {
    "bench/data/make_sentences.py",
    "docs/STYLE.md",
    "lint/style.py",
    "tests/unit/test_lint.py",
}

SUFFIXES = {".rs", ".py", ".md", ".toml"}

# Each refused phrase, and what to write instead.
PHRASES = {
    r"nobody": "`no caller`, `no client`, …",
    r"somebody|someone": "the client, the operator, …",
    r"everybody|everyone|anybody|anyone": "`every client`, `any caller`, …",
    r"who(m)?ever": "`the client that …`, `any caller that …`",
    r"for ever": "`forever`, `always`, `until …`",
    r"(is|are) looked(?! up)": "`X is checked`, `X polls Y`",
    r"tells? whether": "`Returns whether …`",
    r"what (is|are) of": "the name of the thing",
    r"(is|are) no (name|number|path|time|answer|request)": "`invalid X: expected A, got B`",
    r"(says?|said) of (itself|themselves)": "`reports`, `describes`",
    r"(makes|loads|holds|every one of|all of) (it|them)\.": "the thing by its name",
    r"what comes? of": "`the result of`",
    r"of old": "the property that matters",
}

# First words of a doc comment that do not name the thing.
OPENINGS = ("What", "Whatever", "Who", "That", "It", "They", "Of", "How", "Those", "Where")

_PHRASES = [(re.compile(rf"\b(?:{phrase})(?!\w)", re.I), hint) for phrase, hint in PHRASES.items()]
_OF = re.compile(r"(?<![\w`])of_\w+")
_OPENING = re.compile(rf"(?:{'|'.join(OPENINGS)})\b")
_RUST_DOC = re.compile(r"\s*//[/!] ?(.*)")


def problems(path, text):
    """Returns the problems of a file as pairs of a line number and a message."""
    found = [*_wording(text)]
    if path.endswith(".rs"):
        found += _rust(text)
    elif path.endswith(".py"):
        found += _python(text)
    return sorted(found)


def _wording(text):
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, hint in _PHRASES:
            for match in pattern.finditer(line):
                yield number, f"`{match[0]}`: write {hint}"
        for match in _OF.finditer(line):
            yield number, f"`{match[0]}`: no identifier begins with `of_`"


def _rust(text):
    lines = text.splitlines()
    first = next((line for line in lines if line and not line.startswith("#![")), "")
    if not first.startswith("//!"):
        yield 1, "no module comment: begin the file with `//!` and say what it owns"
    inside = False
    for number, line in enumerate(lines, 1):
        doc = _RUST_DOC.match(line)
        if doc and not inside:
            yield from _opening(number, doc[1])
        inside = doc is not None


def _python(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            doc = ast.get_docstring(node)
            if doc:
                yield from _opening(node.body[0].lineno, doc)


def _opening(number, doc):
    match = _OPENING.match(doc)
    if match:
        yield number, f"doc comment begins with `{match[0]}`: begin with the thing or a verb"


def files(root, places):
    """Returns the checked files below `places`, as paths relative to `root`."""
    for place in places:
        path = root / place
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            relative = file.relative_to(root).as_posix()
            hidden = any(part in {"__pycache__", "target"} for part in file.parts)
            if file.suffix in SUFFIXES and relative not in EXEMPT and not hidden:
                yield relative


def check(root, places):
    """Returns every problem below `places` as a line `path:line: message`."""
    missing = [
        f"lint/style.py: `{place}` of CLEAN does not exist"
        for place in places
        if not (root / place).exists()
    ]
    return missing + [
        f"{relative}:{number}: {message}"
        for relative in files(root, places)
        for number, message in problems(relative, (root / relative).read_text("utf-8"))
    ]


if __name__ == "__main__":
    lines = check(ROOT, sys.argv[1:] or CLEAN)
    print(*lines, sep="\n", end="\n" if lines else "")
    sys.exit(f"{len(lines)} problems; docs/STYLE.md says how to write" if lines else 0)
