"""A program that speaks TLS on LitServe speaks it on litplex."""

import base64
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from certificates import Authority
from conftest import PATIENCE, Program, wait_until
from test_litserve import PROGRAMS, end, free_port, is_listening

PROGRAM = """
import sys

import litserve as ls

class API(ls.LitAPI):
    def setup(self, device):
        pass

    def predict(self, x):
        return x

if __name__ == "__main__":
    server = ls.LitServer(API(), accelerator="cpu")
    options = {"generate_client_file": False, **eval(sys.argv[1])}
    server.run(host="127.0.0.1", port=int(sys.argv[2]), **options)
"""

COMMANDS = {"theirs": [sys.executable], "ours": [sys.executable, "-m", "litplex.compat"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    ours, theirs = (Authority(directory, name) for name in ("ours", "theirs"))
    server, client = ours.issue("server"), theirs.issue("client")
    return SimpleNamespace(ours=ours, theirs=theirs, server=server, client=client)


@pytest.fixture(params=COMMANDS)
def start(request, tmp_path):
    """Runs the program on one of the two; returns when it is ready."""
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(PROGRAMS / "without_mcp"), os.environ.get("PYTHONPATH", "")])
    with contextlib.ExitStack() as stack:
        # Paths of sockets must be short.
        directory = tempfile.mkdtemp(prefix="lm", dir="/tmp")
        stack.callback(shutil.rmtree, directory)
        places = {"TMPDIR": directory, "XDG_RUNTIME_DIR": directory, "PYTHONPATH": path}

        def start(context, options, **env):
            port = free_port()
            command = [*COMMANDS[request.param], "program.py", repr(options), str(port)]
            program = Program(command, tmp_path, {**places, **env})
            stack.callback(end, program)
            url = f"https://127.0.0.1:{port}"
            client = stack.enter_context(httpx.Client(base_url=url, verify=context))
            client.timeout = PATIENCE
            program.wait_for_line(rf"Uvicorn running on {url}")
            wait_until(lambda: is_listening(port, program), lambda: program.output)
            wait_until(lambda: client.get("/health").is_success, lambda: program.output)
            is_ours = request.param == "ours"
            return SimpleNamespace(url=url, client=client, is_ours=is_ours, directory=directory)

        yield start


def test_arguments(start, made):
    files = {
        "ssl_certfile": str(made.server.cert),
        "ssl_keyfile": str(made.server.key),
        "ssl_ca_certs": str(made.theirs.cert),
        "ssl_cert_reqs": 2,
    }
    served = start(made.ours.trust(made.client), files)
    assert served.client.post("/predict", json={"a": 1}).json() == {"a": 1}
    stranger = made.ours.trust()
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)):
        httpx.get(f"{served.url}/health", verify=stranger)


def test_variables(start, made):
    cert, key = (base64.b64encode(file.read_bytes()).decode() for file in made.server)
    served = start(made.ours.trust(), {}, LIGHTNING_CERT_PEM=cert, LIGHTNING_KEY_FILE=key)
    assert served.client.post("/predict", json={"a": 1}).json() == {"a": 1}
    files = filter(Path.is_file, Path(served.directory).rglob("*"))
    with_keys = [file for file in files if b"PRIVATE KEY" in file.read_bytes()]
    assert len(with_keys) == (0 if served.is_ours else 1)
