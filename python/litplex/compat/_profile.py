"""The profile of programs that import ``litserve``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from litplex._profile import Profile
from litplex.compat import _arguments

# The names of the keys in ``litserve.server``, which a program may set.
_KEYS = {"LIT_SERVER_API_KEY": "LIT_SERVER_API_KEY", "LIT_SHUTDOWN_API_KEY": "SHUTDOWN_API_KEY"}


def _program_key(variable: str) -> str | None:
    module = sys.modules.get("litplex.compat.server")
    return getattr(module, _KEYS.get(variable, ""), None)


def _presentation(server: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    # Scripts that start LitServe wait for these lines on its stderr.
    lines = [
        "INFO:     Application startup complete.",
        "INFO:     Uvicorn running on {url} (Press CTRL+C to quit)",
    ]
    if options.get("openapi", True):
        lines.append("Swagger UI is available at {url}/docs")
    return {
        "wait_for_first_worker": True,
        "status_reasons": False,
        "index": "litserve running",
        "info_server": server.info or _arguments.server_info(server.options),
        # LitServe does not compress streams; clients may rely on that.
        "compress_streams": False,
        "startup_lines": lines,
    }


LITSERVE = Profile(
    name="LitServe",
    reads_server_arguments=_arguments.read_server_arguments,
    reads_run_arguments=_arguments.read_run_arguments,
    server_defaults={"host": "0.0.0.0", "compression": ["gzip"]},
    # Built-in paths that LitServe does not have.
    yielding={
        "metrics_path": ("/metrics", False),
        "livez_path": ("/livez", "/-/livez"),
        "readyz_path": ("/readyz", "/-/readyz"),
    },
    checks_paths_early=True,
    shares_paths=False,
    resolves_paths_by_file=False,
    warns_of_spec_path=True,
    has_model_options=False,
    checks_hooks_early=False,
    sends_bytes_as_text=True,
    writes_client=True,
    load_failure=(
        "One or more workers failed to start. Shutting down LitServe; the error above says why"
    ),
    program_key=_program_key,
    presentation=_presentation,
)
