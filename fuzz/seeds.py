#!/usr/bin/env python3
"""Writes the seeds of the `frames` target: the golden frames, one by one and all together.

The last byte of an input says how long the pieces are that it is cut into.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz" / "corpus" / "frames"

golden = json.loads((ROOT / "protocol" / "golden.json").read_text(encoding="utf-8"))
frames = {each["name"]: bytes.fromhex(each["frame_hex"]) for each in golden}
frames["all"] = b"".join(frames.values())
for old in SEEDS.iterdir():
    old.unlink()
for name, frame in frames.items():
    file = re.sub(r"\W+", "-", name.lower())
    (SEEDS / file).write_bytes(frame + b"\x07")
