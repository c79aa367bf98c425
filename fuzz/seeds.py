#!/usr/bin/env python3
"""Writes seeds: for the target `frames` the golden frames, one by one and all together, and for
`path` the ways to spell a path.

The last byte of an input of `frames` says how long the pieces are that it is cut into.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"

PATHS = {
    "plain": "/v1/predict",
    "encoded": "/%70redict%20a",
    "twice": "/%2570redict",
    "utf-8": "/%C3%BCbersetzen",
    "not-ascii": "/\u00fcbersetzen",
    "not-hexadecimal": "/50%/%zz%4",
    "control": "/a%0A",
    "overlong": "/%C0%AF",
    "surrogate": "/%ED%A0%80",
    "query": "/a?q=\u00fc#x",
    "admission": "endpoint-+1",
    "reserved": "/a+b;c/{d}/../%2F",
}


def write(target: str, seeds: dict[str, bytes]) -> None:
    """Puts these seeds of a target in the place of its old ones."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, seed in seeds.items():
        (folder / name).write_bytes(seed)


golden = json.loads((ROOT / "protocol" / "golden.json").read_text(encoding="utf-8"))
frames = {each["name"]: bytes.fromhex(each["frame_hex"]) for each in golden}
frames["all"] = b"".join(frames.values())
write(
    "frames",
    {re.sub(r"\W+", "-", name.lower()): frame + b"\x07" for name, frame in frames.items()},
)
write("path", {name: path.encode() for name, path in PATHS.items()})
