"""The program of w1 with chosen options, and wrk as its load."""

import asyncio
from typing import NamedTuple

from harness import load

from .process import Server

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


class Target(NamedTuple):
    """The attributes of a measured server that the harness reads."""

    port: int
    workload: str = "w1"


def serve(endpoint="", server=""):
    """Serves w1 with these keyword arguments of `LitServer` and of `run_servers`."""
    return Server(PROGRAM.format(endpoint=endpoint, server=server))


async def wrk(port, connections, seconds):
    """wrk's figures for requests with a key: `rps`, `p50_ms`, `p99_ms`, `non2xx`, errors."""
    headers = [f"X-API-Key: {KEY}"]
    return await asyncio.to_thread(load.wrk, Target(port), connections, seconds, headers)
