"""The program of w1 with options of one's own, and wrk on it."""

import asyncio
import json
import os
import tempfile
from pathlib import Path

from .process import Server

SCRIPT = Path(__file__).parent.parent / "lua" / "report.lua"
KEY = "bench"

PROGRAM = """
    import hashlib

    class Square(ls.LitAPI):
        def predict(self, request):
            return {{"output": request["input"] ** 2}}

    KEYS = {{"bench": "sha256:" + hashlib.sha256(b"bench").hexdigest()}}

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Square(), accelerator="cpu", {endpoint}), port=0, {server}
        )
"""


def serve(endpoint="", server=""):
    """Serves w1 with these keyword arguments of `LitServer` and of `run_servers`."""
    return Server(PROGRAM.format(endpoint=endpoint, server=server))


async def wrk(port, connections, seconds):
    """What wrk says of requests that carry a key: `rps`, `p50_ms`, `p99_ms`, `non2xx`, errors."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as bodies:
        bodies.writelines(json.dumps({"input": number / 2}) + "\n" for number in range(100))
        bodies.flush()
        process = await asyncio.create_subprocess_exec(
            "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "8s", "--latency",
            "-H", f"X-API-Key: {KEY}", "-s", str(SCRIPT), f"http://127.0.0.1:{port}/predict",
            env={**os.environ, "BODY_FILE": bodies.name, "CONTENT_TYPE": "application/json"},
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
    line = next(line for line in out.decode().splitlines() if line.startswith("JSON"))
    return json.loads(line.removeprefix("JSON"))


def failed(result):
    return result["non2xx"] + result["sock_errors"] + result["timeouts"]
