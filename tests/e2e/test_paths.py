"""Relative paths mean the same, wherever a server is started."""

import os
import subprocess
import sys
import zipapp

import pytest
from conftest import LITPLEX, Server

# Its instance cannot be pickled where `hard` is a lambda: the script then runs again in the worker.
MODELS = """
    import os, sys

    class Reads(ls.LitAPI):
        def __init__(self, file="weights.txt", hard=None, **options):
            super().__init__(**options)
            self.file, self.hard = file, hard
        def setup(self, device):
            self.text = open(self.file).read()
        def predict(self, x):
            print("a line of the worker")
            return [self.text, os.getcwd()]
"""

PROGRAM = (
    MODELS
    + """
    # What the program itself opens is where the shell is, in the worker that runs it again too.
    here = open(sys.argv[1]).read()

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Reads(), path="/instance"),
            ls.LitServer(Reads(hard=lambda: here), path="/again"),
            ls.LitServer("models.py:Reads", path="/name", args={"file": "weights.txt"},
                         log_file="name.log"),
            ls.LitServer(Reads("lower.txt"), path="/cwd", cwd="lower"),
            port=0, access_log="access.log",
        )
"""
)

TOML = """
    port = 0
    access_log = "access.log"
    [[endpoint]]
    path = "/name"
    api = "models.py:Reads"
    args = { file = "weights.txt" }
    log_file = "name.log"
    [[endpoint]]
    path = "/cwd"
    api = "models.py:Reads"
    args = { file = "lower.txt" }
    cwd = "lower"
"""


@pytest.fixture
def places(tmp_path, script):
    """A program in one directory, and the shell in another."""
    app, shell = tmp_path / "app", tmp_path / "shell"
    (app / "lower").mkdir(parents=True)
    shell.mkdir()
    (app / "weights.txt").write_text("of the app")
    (app / "lower" / "lower.txt").write_text("lower")
    (shell / "config.txt").write_text("of the shell")
    script(MODELS, "app/models.py")
    script(PROGRAM, "app/server.py")
    (app / "litplex.toml").write_text(TOML)
    return app, shell


@pytest.mark.parametrize(
    ("command", "paths"),
    [
        ([sys.executable, "server.py", "config.txt"], ["/instance", "/again", "/name", "/cwd"]),
        (
            [LITPLEX, "serve", "server.py", "--python", sys.executable, "--", "config.txt"],
            ["/instance", "/again", "/name", "/cwd"],
        ),
        ([LITPLEX, "serve", "litplex.toml"], ["/name", "/cwd"]),
    ],
)
def test_paths_are_relative_to_the_file_that_names_them(run, places, command, paths):
    app, shell = places
    command = [
        f"../app/{part}" if part in ("server.py", "litplex.toml") else part for part in command
    ]
    there = ["sh", "-c", 'cd "$0" && exec "$@"', shell, *command]
    server = run(there, kind=Server).wait_until_ready()
    for path in paths:
        wanted = ["lower", str(app / "lower")] if path == "/cwd" else ["of the app", str(app)]
        assert server.post(path, json=1).json() == wanted, path
    assert server.stop() == 0
    assert "a line of the worker" in (app / "name.log").read_text()
    assert len((app / "access.log").read_text().splitlines()) == len(paths)
    assert os.listdir(shell) == ["config.txt"]


def test_programs_of_litserve_keep_the_directory_of_the_shell(run, places, script):
    _, shell = places
    script(
        """
        import os, litserve

        class Here(litserve.LitAPI):
            def setup(self, device): pass
            def predict(self, x): return os.getcwd()
            def decode_request(self, request): return request
            def encode_response(self, output): return output

        if __name__ == "__main__":
            litserve.LitServer(Here()).run(port=0, generate_client_file=False)
        """,
        "app/server.py",
    )
    command = [sys.executable, "-m", "litplex.compat", "../app/server.py"]
    there = ["sh", "-c", 'cd "$0" && exec "$@"', shell, *command]
    server = run(there, kind=Server).wait_until_ready()
    assert server.post("/predict", json=1).json() == str(shell)


def test_code_without_a_file_is_where_the_shell_is(places):
    _, shell = places
    code = (
        "import litplex as ls; from litplex._server import program_of;"
        "s = ls.LitServer('models.py:Reads', path='/a');"
        "print([e.get('directory') for e in program_of([s], {})['endpoint']])\n"
    )
    # The second is started by the standard library, as kernels of notebooks are.
    for command, text in (["-c", code], None), (["-m", "code", "-q"], code):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=shell,
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "[None]" in done.stdout, command


def test_a_program_in_an_archive_is_where_the_archive_is(run, places, script):
    app, shell = places
    (app.parent / "packed/package").mkdir(parents=True)
    script(MODELS, "packed/package/models.py")
    script(
        """
        from package.models import Reads

        if __name__ == "__main__":
            ls.LitServer(Reads()).run(port=0)
        """,
        "packed/__main__.py",
    )
    zipapp.create_archive(app.parent / "packed", app / "app.pyz")
    there = ["sh", "-c", 'cd "$0" && exec "$@"', shell, sys.executable, "../app/app.pyz"]
    server = run(there, kind=Server).wait_until_ready()
    assert server.post("/predict", json=1).json() == ["of the app", str(app)]


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "linked.py"],
        [LITPLEX, "serve", "linked.py", "--python", sys.executable],
        [sys.executable, "-m", "litplex.compat", "linked.py"],
    ],
)
def test_a_linked_program_imports_what_is_beside_its_target(run, places, script, command):
    app, shell = places
    script(
        """
        from models import Reads

        if __name__ == "__main__":
            ls.LitServer(Reads(__file__)).run(port=0)
        """,
        "app/imports.py",
    )
    (shell / "linked.py").symlink_to(app / "imports.py")
    there = ["sh", "-c", 'cd "$0" && exec "$@"', shell, *command]
    server = run(there, kind=Server).wait_until_ready()
    text, directory = server.post("/predict", json=1).json()
    assert "from models import Reads" in text
    assert directory == str(shell)
