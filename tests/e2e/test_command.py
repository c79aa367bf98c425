"""The command: its output and its exit status."""

import os
import re
import subprocess

import pytest
from conftest import LITPLEX


def litplex(directory, *args):
    done = subprocess.run(
        [LITPLEX, *args], cwd=directory, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def test_version_and_help(tmp_path):
    status, out, _ = litplex(tmp_path, "--version")
    assert (status, out.split()[0]) == (0, "litplex")
    status, out, _ = litplex(tmp_path, "--help")
    assert status == 0
    assert "litplex serve server.py" in out


COMMANDS = [
    ["--help"],
    ["--version"],
    ["serve", "--help"],
    ["key", "ann"],
    ["check", "litplex.toml"],
    ["check", "--all", "--load", "litplex.toml"],
    ["env", "list"],
    ["env", "prune"],
]


@pytest.fixture
def file(tmp_path, script):
    """Writes a file that can be served."""
    script("class API(ls.LitAPI):\n    def predict(self, x): return x", "a.py")
    (tmp_path / "litplex.toml").write_text('[[endpoint]]\npath = "/a"\napi = "a.py:API"\n')


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reader_that_has_gone_ends_the_command_quietly(tmp_path, file, command):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [LITPLEX, *command],
        cwd=tmp_path,
        env={**os.environ, "LITPLEX_CACHE_DIR": str(tmp_path / "cache")},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writer)
    assert done.returncode == 141, "128 and the number of SIGPIPE"
    assert "error" not in done.stderr and "panic" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_output_that_cannot_be_written_is_an_error(tmp_path, file, command):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [LITPLEX, *command],
            cwd=tmp_path,
            env={**os.environ, "LITPLEX_CACHE_DIR": str(tmp_path / "cache")},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert "error: cannot write to standard output: No space left on device" in done.stderr


def test_a_key_that_cannot_be_shown_gets_no_line(tmp_path):
    with open("/dev/full", "w") as full:
        command = [str(LITPLEX), "key", "ann"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")


def test_check_prints_what_would_be_served(tmp_path, script):
    script("""
        class API(ls.LitAPI):
            def predict(self, x):
                return x

        print("this is not the answer")
        if __name__ == "__main__":
            ls.run_servers(ls.LitServer(API(max_batch_size=8), path="/a", timeout=1.5), port=9)
    """)
    status, out, _ = litplex(tmp_path, "check", "server.py")
    assert status == 0
    assert "http://127.0.0.1:9" in out
    assert "POST /a" in out
    assert re.search("max_batch_size +8", out)
    assert re.search("timeout +1.5s", out)
    assert "not the answer" not in out


def test_check_of_a_file_that_names_models(tmp_path, script):
    script("class API(ls.LitAPI):\n    def predict(self, x): return x", "a.py")
    (tmp_path / "litplex.toml").write_text('[[endpoint]]\npath = "/a"\napi = "a.py:API"\n')
    status, out, _ = litplex(tmp_path, "check", "litplex.toml")
    assert (status, "a.py:API" in out) == (0, True)


@pytest.mark.parametrize(
    ("name", "text", "status", "says"),
    [
        ("litplex.toml", "[[endpoint]]\npath = 'a'\n", 2, "2 errors:"),
        (
            "litplex.toml",
            "port = = 1",
            2,
            "error: litplex.toml: TOML parse error at line 1, column",
        ),
        ("litplex.toml", "", 2, "there is no endpoint"),
        ("server.py", "x = 1", 2, "ended without serving"),
        ("server.py", "x = 1", 2, "call `LitServer(…).run()` or `run_servers(…)` in it\n"),
        ("server.py", "raise RuntimeError('oops')", 2, "RuntimeError: oops"),
        ("server.py", "import litplex; litplex.run_servers()", 2, "at least one"),
        ("server.py", "int('x')", 2, "Traceback"),
        ("server.txt", "", 2, "neither a Python file (.py) nor a TOML file (.toml)"),
    ],
)
def test_a_program_that_cannot_be_served_is_refused_with_a_reason(
    tmp_path, name, text, status, says
):
    (tmp_path / name).write_text(text)
    got, _, err = litplex(tmp_path, "check", name)
    assert (got, says in err) == (status, True), err


@pytest.mark.parametrize("name", ["missing.py", "missing.toml"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    status, _, err = litplex(tmp_path, "serve", name)
    assert (status, name in err) == (2, True)
