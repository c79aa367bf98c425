"""Environments that are created from a file of requirements, without a network."""

import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile

import pytest
from conftest import LITPLEX, Server, command_of, descendants, wait_until

MODEL = """
    class API(ls.LitAPI):
        def setup(self, device):
            import tiny
            self.version = tiny.VERSION

        def predict(self, x):
            import sys
            return [self.version, sys.prefix]

    class Plain(ls.LitAPI):
        def predict(self, x):
            return x

    if __name__ == "__main__":
        needs = ls.LitServer(API(), path="/a", requirements="requirements.txt")
        ls.run_servers(needs, ls.LitServer(Plain(), path="/b"), port=0)
"""

MAKING = "/a: making its environment from "


@pytest.fixture
def wheels(tmp_path):
    """Writes versions of a package `tiny`, as wheels, and a file that requires one of them."""

    def write(version):
        name = f"tiny-{version}-py3-none-any.whl"
        info = f"tiny-{version}.dist-info"
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr("tiny.py", f"VERSION = {version!r}\n")
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n"
            )
            wheel.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{info}/RECORD", "")
        (tmp_path / "requirements.txt").write_text(f"--no-index\n./{name}\n")

    return write


@pytest.fixture
def cache(tmp_path):
    """A cache of the test's own, and no `uv`."""
    places = os.environ["PATH"].split(os.pathsep)
    without = [place for place in places if not shutil.which("uv", path=place)]
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": os.pathsep.join(without)}


def test_the_first_server_creates_an_environment_for_all(run, script, wheels, cache, tmp_path):
    wheels("1.0")
    program = [sys.executable, script(MODEL)]
    servers = [run(program, kind=Server, env=cache) for _ in range(2)]
    answers = [server.wait_until_ready().post("/a", json=0).json() for server in servers]
    assert answers[0] == answers[1]
    version, prefix = answers[0]
    assert (version, prefix.startswith(str(tmp_path / "cache/litplex/venvs"))) == ("1.0", True)
    assert sum(server.output.count(MAKING) for server in servers) == 1
    assert sum("/a: Processing" in server.output for server in servers) == 1, "pip is shown"
    again = run(program, kind=Server, env=cache).wait_until_ready()
    assert again.post("/a", json=0).json() == answers[0]
    assert MAKING not in again.output


def test_other_requirements_are_another_environment(run, script, wheels, cache):
    prefixes = []
    for version in ("1.0", "2.0"):
        wheels(version)
        server = run([sys.executable, script(MODEL)], kind=Server, env=cache).wait_until_ready()
        found, prefix = server.post("/a", json=0).json()
        assert found == version
        prefixes.append(prefix)
    assert prefixes[0] != prefixes[1]


def test_a_package_that_cannot_be_had_ends_the_start_by_its_name(serve, cache, tmp_path):
    (tmp_path / "requirements.txt").write_text("--no-index\nno-such-package\n")
    server = serve(MODEL, env=cache, ready=False)
    assert server.wait() == 3
    says = (
        r"endpoint `/a`: no environment can be made .* No matching distribution .* no-such-package"
    )
    assert re.search(says, server.output)
    assert not [*(tmp_path / "cache/litplex/venvs").glob("*/litplex-ready")]


def test_a_file_that_is_not_there_is_refused(serve):
    server = serve(MODEL, ready=False)
    assert server.wait() == 2
    assert "endpoint `/a`: `requirements` names" in server.output


# Behaves as uv does, with the packages that are here.
UV = f"""#!/bin/sh
echo "uv: $*"
case "$1" in
    venv) exec {sys.executable} -m venv "$4" ;;
    pip) exec "$4" -m pip install --disable-pip-version-check -r "$6" ;;
esac
"""


def uv(tmp_path, cache, text):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text(text)
    (tmp_path / "bin/uv").chmod(0o755)
    return {**cache, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{cache['PATH']}"}


def test_uv_makes_it_where_it_is_there(serve, wheels, cache, tmp_path):
    wheels("1.0")
    server = serve(MODEL, env=uv(tmp_path, cache, UV))
    assert server.post("/a", json=0).json()[0] == "1.0"
    server.wait_for_line(f"/a: uv: venv --python {sys.executable} ")


def test_others_serve_while_an_environment_is_created_and_a_stop_ends_that(
    serve, wheels, cache, tmp_path
):
    wheels("1.0")
    server = serve(MODEL, env=uv(tmp_path, cache, "#!/bin/sh\nsleep 60 & wait"), ready=False)
    server.wait_until_listening().wait_for_line(MAKING)
    wait_until(lambda: server.post("/b", json=1).status_code == 200)
    assert server.post("/a", json=1).status_code == 503
    wait_until(lambda: any("sleep" in command_of(pid) for pid in descendants(server.process.pid)))
    assert server.stop() == 0


def test_environments_are_shown_kept_while_they_are_used_and_removed(
    run, script, wheels, cache, tmp_path
):
    wheels("1.0")
    program = [sys.executable, script(MODEL)]
    server = run(program, kind=Server, env=cache).wait_until_ready()
    prefix = server.post("/a", json=0).json()[1]

    def env(*args):
        command = [LITPLEX, "env", *args]
        return subprocess.run(
            command, env={**os.environ, **cache}, capture_output=True, text=True, check=True
        ).stdout

    assert re.search(rf"{prefix} +[\d.]+ MB +\d+s ago +yes +.*requirements.txt", env("list"))
    assert "0 environments removed" in env("prune")
    # What is required is the same, however it is written.
    asked = tmp_path / "requirements.txt"
    asked.write_text("# what the model needs\n\n" + asked.read_text().replace("\n", "  # x\n"))
    again = run(program, kind=Server, env=cache).wait_until_ready()
    assert again.post("/a", json=0).json()[1] == prefix
    assert MAKING not in again.output
    assert again.stop() == 0
    assert server.stop() == 0
    assert f"{prefix}  " in env("list")
    assert "0 environments removed" in env("prune", "--unused-for", "1")
    assert f"removed {prefix}\n1 environment removed" in env("prune")
    assert not [*(tmp_path / "cache/litplex/venvs").iterdir()]


TOML = """
port = 0
[[endpoint]]
path = "/a"
api = "server.py:API"
"""

CRASHES = """
    import os

    class API(ls.LitAPI):
        def predict(self, x):
            if x == "die":
                os._exit(1)
            return x
"""


@pytest.fixture
def from_file(run, script, tmp_path):
    script(CRASHES)
    (tmp_path / "litplex.toml").write_text(TOML)

    def start(**env):
        return run([LITPLEX, "serve", "litplex.toml"], kind=Server, env=env)

    return start


def test_a_place_that_others_can_write_to_holds_nothing_that_is_run(from_file, tmp_path):
    chosen = tmp_path / "cache"
    server = from_file(LITPLEX_CACHE_DIR=str(chosen)).wait_until_ready()
    (sdk,) = chosen.glob("sdk-*/litplex")
    assert stat.S_IMODE(chosen.stat().st_mode) == 0o700
    # Each directory from the root down, and its parents, are checked before each start.
    for open_one in (sdk.parent, chosen, tmp_path):
        mode = stat.S_IMODE(open_one.stat().st_mode)
        open_one.chmod(0o777)
        server.post("/a", json="die")
        server.wait_for_line(f"other users can write to `{open_one}`")
        open_one.chmod(mode)
        wait_until(lambda: server.post("/a", json=1).status_code == 200)
    assert server.stop() == 0
    tmp_path.chmod(0o777)
    refused = from_file(LITPLEX_CACHE_DIR=str(tmp_path / "other"))
    assert refused.wait() == 1
    tmp_path.chmod(0o700)
    last = refused.output.splitlines()[-1]
    assert "other users can write to" in last, refused.output
    assert last.endswith("; set LITPLEX_CACHE_DIR to a directory of your own")


def test_a_cache_that_is_emptied_is_filled_again(from_file, tmp_path):
    chosen = tmp_path / "cache"
    server = from_file(LITPLEX_CACHE_DIR=str(chosen)).wait_until_ready()

    def emptied():
        """The server may write a file of the cache meanwhile."""
        shutil.rmtree(chosen, ignore_errors=True)
        return not chosen.exists()

    wait_until(emptied)
    server.post("/a", json="die")
    wait_until(lambda: server.post("/a", json=1).status_code == 200)
    # The measurements of the new worker, too.
    wait_until(lambda: [*chosen.glob("starts/*.json")])


def test_a_user_without_a_home_has_a_private_place(from_file, runtime, tmp_path):
    """Files of another user in the shared directory for temporary files are not used."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    home = tmp_path / "file"
    home.write_text("")
    env = {**runtime, "HOME": str(home), "XDG_CACHE_HOME": "", "TMPDIR": str(shared)}
    server = from_file(**env).wait_until_ready()
    own = shared / f"litplex-{os.geteuid()}"
    assert [*own.glob("cache/sdk-*/litplex/_worker")]
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    server.wait_for_line("LITPLEX_CACHE_DIR chooses the place")
