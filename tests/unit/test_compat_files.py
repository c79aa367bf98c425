"""The files that are written for a program: a client, and a Dockerfile."""

import json
import logging
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import litplex
import pytest
from litplex.compat import docker_builder
from litplex.compat._client import write_client


class Echo(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path == "/embed" else 404)
        self.end_headers()
        self.wfile.write(body + self.headers["Content-Type"].encode())

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("path", "status"), [("/embed", 200), ("/other", 404)])
def test_a_client_sends_a_request_as_it_is(tmp_path, path, status):
    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            write_client(str(tmp_path), f"http://127.0.0.1:{server.server_port}{path}")
            client = [sys.executable, "-I", tmp_path / "client.py"]
            printed = subprocess.run(client, capture_output=True, text=True, timeout=30)
        finally:
            server.shutdown()
            serving.join()
    assert printed.stderr == ""
    assert printed.stdout == f'Status: {status}\nResponse:\n{{"input": 4.0}}application/json\n'


def test_an_existing_client_is_not_changed(tmp_path):
    (tmp_path / "client.py").write_text("mine")
    write_client(str(tmp_path), "http://127.0.0.1:8000/predict")
    assert (tmp_path / "client.py").read_text() == "mine"


def test_a_client_that_cannot_be_written_is_a_warning(tmp_path, caplog, monkeypatch):
    # The import of `litplex.compat` sets a handler of this logger.
    monkeypatch.setattr(logging.getLogger("litserve"), "propagate", True)
    write_client(str(tmp_path / "missing"), "http://127.0.0.1:8000/predict")
    assert "cannot write client.py" in caplog.text


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A directory with a program in it, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text("numpy")
    (tmp_path / "server.py").touch()
    return tmp_path


def instructions(program):
    lines = (program / "Dockerfile").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_an_image_has_the_requirements_and_runs_the_program(program, capsys):
    assert docker_builder.main(["server.py", "--port", "9000"]) == 0
    assert instructions(program) == [
        "ARG PYTHON_VERSION=3.12",
        "FROM python:${PYTHON_VERSION}-slim",
        "WORKDIR /app",
        "COPY requirements.txt .",
        "RUN pip install --no-cache-dir -r requirements.txt",
        f'RUN pip install --no-cache-dir "litplex[litserve]=={litplex.__version__}"',
        "COPY . .",
        "ENV PYTHONUNBUFFERED=1",
        "EXPOSE 9000",
        'CMD ["python", "-m", "litplex.compat", "server.py"]',
    ]
    assert "docker run -p 9000:9000 litplex-model" in capsys.readouterr().out


def test_an_image_for_gpus_requests_them(program, capsys):
    docker_builder.dockerize("server.py", gpu=True)
    gpu = "ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    assert gpu in instructions(program)
    assert "docker run --gpus all -p 8000:8000" in capsys.readouterr().out


def test_a_program_may_lie_below_the_working_directory(program):
    (program / "app").mkdir()
    (program / "app/with space.py").touch()
    docker_builder.dockerize(str(program / "app/with space.py"))
    command = json.loads(instructions(program)[-1].partition(" ")[2])
    assert command == ["python", "-m", "litplex.compat", "app/with space.py"]


def test_missing_requirements_cause_a_warning(program):
    (program / "requirements.txt").unlink()
    with pytest.warns(UserWarning, match="requirements.txt not found"):
        docker_builder.dockerize("server.py")
    assert not any("requirements" in line for line in instructions(program))


@pytest.mark.parametrize("name", ["missing.py", "../elsewhere.py", "."])
def test_a_program_must_be_in_the_working_directory(program, name, capsys):
    (program.parent / "elsewhere.py").touch()
    with pytest.raises(FileNotFoundError, match="must be in the current directory"):
        docker_builder.dockerize(name)
    assert docker_builder.main([name]) == 1
    assert capsys.readouterr().err.startswith("error: Server file")
    assert not (program / "Dockerfile").exists()
