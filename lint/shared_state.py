"""Compares the locks and mutable statics of the Rust crates with the list in ARCHITECTURE.md.

The invariant "One task owns each piece of state" names the files of its exceptions, as
`CRATE/…/FILE.rs`. The check fails when a file has a lock or a mutable static and is not named, and
when a named file has neither. Test modules and read-only statics are not counted.
Usage: `python lint/shared_state.py`.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TITLE = "- **One task owns each piece of state**"

_COMMENT = re.compile(r"//[^\n]*")
_TESTS = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ (\{.*|;)", re.S)
_TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*mod (\w+);")
_SHARED = re.compile(
    r"\b(?:Mutex|RwLock)<"
    r"|\bstatic \w+: [^=;]*(?:Atomic|LazyLock|OnceLock|Mutex|RwLock|Semaphore)"
    r"|\bthread_local!"
)
_NAMED = re.compile(r"`([\w-]+)/(?:[\w/]+/)?(\w+\.rs)`")


def shared(text):
    """Returns whether this Rust text has a lock or a mutable static outside of tests."""
    return bool(_SHARED.search(_TESTS.sub("", _COMMENT.sub("", text))))


def files_with_state(root):
    """Returns the crate and the name of each file with a lock or a mutable static."""
    found = set()
    for source in sorted(root.glob("crates/*/src")):
        texts = {file: file.read_text("utf-8") for file in source.rglob("*.rs")}
        tests = {name for text in texts.values() for name in _TEST_MODULE.findall(text)}
        found |= {
            (source.parent.name, file.name)
            for file, text in texts.items()
            if file.stem not in tests and shared(text)
        }
    return found


def named_files(page):
    """Returns the crate and the name of each file that the invariant names."""
    bullet = page.partition(TITLE)[2].split("\n- ")[0]
    return set(_NAMED.findall(bullet))


def check(root):
    """Returns the differences between the code and ARCHITECTURE.md as sentences."""
    found, named = (
        files_with_state(root),
        named_files((root / "ARCHITECTURE.md").read_text("utf-8")),
    )
    return [
        *(
            f"crates/{crate}: {file} has a lock or a mutable static; let a task own the state, or "
            f"name `{crate}/{file}` under {TITLE[4:-2]!r} in ARCHITECTURE.md"
            for crate, file in sorted(found - named)
        ),
        *(
            f"ARCHITECTURE.md: `{crate}/{file}` has no lock and no mutable static; remove it from "
            f"{TITLE[4:-2]!r}"
            for crate, file in sorted(named - found)
        ),
    ]


if __name__ == "__main__":
    problems = check(ROOT)
    print(*problems, sep="\n", end="\n" if problems else "")
    sys.exit(1 if problems else 0)
