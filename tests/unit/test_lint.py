"""The checks of `make lint`: wording, circles of imports, and state that no task owns."""

import importlib.util
from pathlib import Path

import pytest

LINT = Path(__file__).parents[2] / "lint"


def load(name):
    spec = importlib.util.spec_from_file_location(f"lint_{name}", LINT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


style, cycles, shared_state = load("style"), load("cycles"), load("shared_state")

GOOD_RUST = """\
//! The queue of an endpoint.

/// A job that waits for a worker.
///
/// It is cancelled when its caller leaves.
struct Job;
"""


def messages(path, text):
    return [message for _, message in style.problems(path, text)]


def test_good_files_have_no_problems():
    assert messages("a.rs", GOOD_RUST) == []
    assert (
        messages("a.py", '"""Loads models."""\n\n\ndef load():\n    """Loads one model."""\n') == []
    )
    assert (
        messages("a.md", "The office offers `option_of_x` for every client; it is looked up.\n")
        == []
    )


@pytest.mark.parametrize(
    "phrase",
    [
        "nobody waits",
        "Somebody asked",
        "everybody",
        "whoever asks",
        "for ever",
        "is looked at",
        "Tells whether it runs",
        "what is of the worker",
        "Loads it.",
        "this is no request",
        "says of itself",
    ],
)
def test_a_refused_phrase_is_found_in_every_language(phrase):
    for path, text in [
        ("a.rs", f"{GOOD_RUST}// {phrase}\n"),
        ("a.py", f"# {phrase}\n"),
        ("a.md", f"{phrase}\n"),
    ]:
        assert len(messages(path, text)) == 1, path


def test_an_identifier_that_begins_with_of_is_found():
    assert messages("a.py", "of_one = 1\n") == ["`of_one`: no identifier begins with `of_`"]
    assert len(messages("a.rs", f"{GOOD_RUST}fn of_status() {{}}\n")) == 1
    assert messages("a.py", "kind_of_one = 1\n") == []


def test_a_rust_file_without_a_module_comment_is_found():
    assert messages("a.rs", "use std::fmt;\n")[0].startswith("no module comment")
    assert messages("a.rs", "#![allow(missing_docs)]\n\n//! Frames.\n") == []


def test_a_doc_comment_that_does_not_name_the_thing_is_found():
    assert len(messages("a.rs", "//! Frames.\n\n/// What a job is.\nstruct Job;\n")) == 1
    assert len(messages("a.py", 'def f():\n    """How long it took."""\n')) == 1


def test_a_tree_is_checked_and_exempt_and_other_files_are_not(tmp_path):
    for path in ["docs/STYLE.md", "docs/a.md", "docs/a.json", "docs/target/b.md"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("nobody\n")
    found = style.check(tmp_path, ["docs", "gone"])
    assert [line.split(": ")[0] for line in found] == ["lint/style.py", "docs/a.md:1"]


def write(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


RUST = {
    "src/lib.rs": "mod a;\nmod b;\nmod c;\npub use a::{A, One as Other};\n",
    "src/a.rs": "use crate::b::B;\nfn f() { super::c::g() }\n",
    "src/b.rs": "use crate::{\n    c::{self, C},\n};\n",
    "src/c/mod.rs": "mod inner;\npub use inner::C;\n",
    "src/c/inner.rs": "// use crate::a::A;\n",
}


def test_the_imports_of_rust_files_are_followed_through_re_exports(tmp_path):
    write(tmp_path, RUST)
    graph = cycles.rust_graph(tmp_path)
    assert graph["src/lib.rs"] == set()
    assert graph["src/a.rs"] == {"src/b.rs", "src/c/mod.rs"}
    assert graph["src/b.rs"] == {"src/c/mod.rs", "src/c/inner.rs"}
    assert cycles.circles(graph) == []


@pytest.mark.parametrize(
    "line",
    [
        "use crate::Other;",
        "use super::super::a;",
        "fn f() { crate::a::f() }",
        "pub use crate::A;\n",
    ],
)
def test_a_circle_of_three_rust_files_is_found(tmp_path, line):
    write(tmp_path, RUST | {"src/c/inner.rs": line})
    found = cycles.circles(cycles.rust_graph(tmp_path))
    is_import = not line.startswith("pub use")
    assert found == ([["src/a.rs", "src/b.rs", "src/c/inner.rs"]] if is_import else [])


def test_tests_and_pairs_are_not_circles(tmp_path):
    tests = "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n"
    write(tmp_path, RUST | {"src/c/inner.rs": tests})
    assert cycles.circles(cycles.rust_graph(tmp_path)) == []
    assert cycles.circles({"a": {"b"}, "b": {"a"}}) == []


def test_a_circle_of_python_modules_is_found(tmp_path):
    package = tmp_path / "pack"
    files = {
        "__init__.py": "from ._a import A\n",
        "_a.py": "from . import _b\n",
        "_b.py": "def f():\n    from pack.sub._c import C\n",
        "sub/__init__.py": "",
        "sub/_c.py": "import os\n",
    }
    write(package, files)
    assert cycles.circles(cycles.python_graph(package)) == []
    write(package, {"sub/_c.py": "from pack import A\n"})
    found = cycles.circles(cycles.python_graph(package))
    assert found == [["_a.py", "_b.py", "sub/_c.py"]]
    write(package, {"sub/_c.py": "from .. import _a\n"})
    assert cycles.circles(cycles.python_graph(package)) == found


def test_known_circles_may_only_shrink():
    three, four = ["a", "b", "c"], ["d", "e", "f", "g"]
    assert cycles.verdict("x", [], []) is None
    assert cycles.verdict("x", [three], [3]) is None
    assert "in a circle" in cycles.verdict("x", [three], [])
    assert "in a circle" in cycles.verdict("x", [four], [3])
    assert "in a circle" in cycles.verdict("x", [three, three], [4])
    assert "shrunk to [3]" in cycles.verdict("x", [three], [4])
    assert "shrunk to [4, 3]" in cycles.verdict("x", [four, three], [7])
    assert "shrunk to []" in cycles.verdict("x", [], [3])


def test_locks_and_mutable_statics_are_found_outside_of_tests():
    for line in [
        "struct A(Arc<Mutex<u8>>);",
        "static COUNT: AtomicU32 = AtomicU32::new(0);",
        "static SINCE: LazyLock<u64> = LazyLock::new(now);",
    ]:
        assert shared_state.shared(line), line
        assert not shared_state.shared(f"// {line}")
        assert not shared_state.shared(f"#[cfg(test)]\nmod tests {{\n{line}\n}}\n")
    assert not shared_state.shared('static NAMES: [&str; 2] = ["a", "b"];')


def test_shared_state_is_compared_with_the_page_in_both_directions(tmp_path):
    page = f"{shared_state.TITLE}: `a/lock.rs`, `a/gone.rs`.\n- Other: `a/x.rs`.\n"
    write(tmp_path, {"ARCHITECTURE.md": page})
    lock = "use std::sync::Mutex;\nstruct A(Mutex<u8>);\n"
    crate = {"lib.rs": "mod b;\n#[cfg(test)]\nmod random;\n", "b/lock.rs": lock, "random.rs": lock}
    write(tmp_path, {f"crates/a/src/{name}": text for name, text in crate.items()})
    (found,) = shared_state.check(tmp_path)
    assert found.startswith("ARCHITECTURE.md: `a/gone.rs` has no lock")
    write(tmp_path, {"crates/a/src/b/new.rs": "static N: AtomicU8 = AtomicU8::new(0);\n"})
    assert "name `a/new.rs` under" in shared_state.check(tmp_path)[0]


def test_the_worker_shares_nothing_directly_with_the_app_host_and_the_face_of_litserve():
    graph = cycles.python_graph(LINT.parent / "python/litplex")
    folders = ("_worker", "_apphost", "compat")
    crossing = [
        (file, target)
        for file, targets in graph.items()
        for target in targets
        if "_worker" in (file.split("/")[0], target.split("/")[0])
        and file.split("/")[0] != target.split("/")[0]
        and {file.split("/")[0], target.split("/")[0]} <= set(folders)
    ]
    assert not crossing
    assert "_model/schema.py" in graph["_worker/hooks/hooks.py"], "the graph is not empty"
