"""The load generators: wrk, and loadgen for workloads that wrk does not support."""

import json
import os
import subprocess

from . import paths
from .checks import body_file, content_type
from .processes import CLIENTS


def spawn(command, env=None):
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    CLIENTS.add(process.pid)
    return process


def finish(process, limit_s):
    try:
        return process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError("the load generator overran") from None


def wrk_start(server, conns, secs, path=None, headers=()):
    url = f"http://127.0.0.1:{server.port}{path or server.path}"
    command = ["wrk", "-t1", f"-c{conns}", f"-d{secs}s", "--timeout", "8s", "--latency"]
    for header in headers:
        command += ["-H", header]
    command += ["-s", paths.WRK_SCRIPT, url]
    env = {"BODY_FILE": str(body_file(server.workload))}
    return spawn(command, env | {"CONTENT_TYPE": content_type(server.workload)})


def wrk_end(process, secs):
    out, err = finish(process, secs + 15)
    for line in out.splitlines():
        if line.startswith("JSON"):
            result = json.loads(line.removeprefix("JSON"))
            result["raw_rps"] = result["rps"]
            # only 2xx count
            good = result["requests"] - result["non2xx"]
            result["rps"] = round(good / result["secs"], 3)
            return result
    raise RuntimeError(f"wrk: {out} {err}")


def wrk(server, conns, secs, headers=()):
    return wrk_end(wrk_start(server, conns, secs, headers=headers), secs)


def wrk_errors(result):
    return result["non2xx"] + result["sock_errors"] + result["timeouts"]


def loadgen_start(server, mode, **options):
    address = f"127.0.0.1:{server.port}"
    command = [paths.LOADGEN, mode, "--addr", address, "--path", server.path]
    for name, value in options.items():
        command += ["--" + name.replace("_", "-"), value]
    return spawn(command)


def loadgen_end(process, wait_s=40):
    out, err = finish(process, wait_s)
    try:
        return json.loads(out)
    except ValueError:
        raise RuntimeError(f"loadgen: {out} {err}") from None


def loadgen(server, mode, wait_s=40, **options):
    return loadgen_end(loadgen_start(server, mode, **options), wait_s)
