"""Writes Dockerfiles: ``python -m litplex.compat.docker_builder server.py --port 8000 --gpu``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence

from litplex import __version__

_DOCKERFILE = """\
ARG PYTHON_VERSION=3.12
FROM python:${{PYTHON_VERSION}}-slim
{gpu}
# Packages that `pip` cannot install:
# RUN apt-get update && apt-get install -y --no-install-recommends <package>

WORKDIR /app
{requirements}RUN pip install --no-cache-dir "litplex[litserve]=={version}"
COPY . .

ENV PYTHONUNBUFFERED=1
EXPOSE {port}
CMD {command}
"""

_GPU = """
# The wheels of torch and of other packages contain CUDA; the host has the driver. If a package
# needs more of CUDA, start from an image that has it, such as nvidia/cuda, and install Python.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
"""

_REQUIREMENTS = """\
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
"""


def dockerize(server_filename: str, port: int = 8000, gpu: bool = False) -> None:
    """Writes ``Dockerfile`` to the working directory, replacing one that exists, and prints how to
    build and run the image. Without a ``requirements.txt`` it warns.

    Args:
        server_filename: The program that serves, in the working directory or below it. Its host
            must be ``0.0.0.0``, which is the default of LitServe.
        port: The port of the program. Default: 8000.
        gpu: Whether the program uses the GPUs of the machine. Default: False.

    Raises:
        FileNotFoundError: the program does not exist there.
    """
    program = os.path.relpath(server_filename)
    if not os.path.isfile(program) or program.startswith(os.pardir + os.sep):
        raise FileNotFoundError(
            f"Server file `{server_filename}` must be in the current directory: {os.getcwd()}"
        )
    has_requirements = os.path.isfile("requirements.txt")
    if not has_requirements:
        warnings.warn(
            f"requirements.txt not found at {os.getcwd()}; list the packages there that "
            f"`{program}` needs, or install them in the Dockerfile",
            UserWarning,
            stacklevel=2,
        )
    text = _DOCKERFILE.format(
        gpu=_GPU if gpu else "",
        requirements=_REQUIREMENTS if has_requirements else "",
        version=__version__,
        port=port,
        command=json.dumps(["python", "-m", "litplex.compat", program]),
    )
    with open("Dockerfile", "w", encoding="utf-8") as file:
        file.write(text)
    print(
        f"Dockerfile created successfully: {os.path.abspath('Dockerfile')}. Build the image and "
        f"run it:\n"
        f"  docker build -t litplex-model .\n"
        f"  docker run {'--gpus all ' if gpu else ''}-p {port}:{port} litplex-model"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status.

    Args:
        arguments: The arguments. Default: those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="dockerize", description="Writes a Dockerfile for a program that serves."
    )
    parser.add_argument("server_filename", help="The path to the server file.")
    parser.add_argument("--port", type=int, default=8000, help="the port it serves on (8000)")
    parser.add_argument("--gpu", action="store_true", help="let it use the GPUs of the machine")
    given = parser.parse_args(arguments)
    try:
        dockerize(given.server_filename, given.port, given.gpu)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
