"""Keywords of ``LitServer`` and ``run`` for type checkers: the options, and the further arguments
of LitServe (``compat/_arguments.py``)."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Optional, Union

from litplex._keywords import EndpointOptions, ServerOptions

if TYPE_CHECKING:
    from litplex.compat.callbacks import Callback
    from litplex.compat.loggers import Logger

File = Union[str, "PathLike[str]"]


class LitServerOptions(EndpointOptions, total=False):
    """Keywords of ``LitServer``."""

    api_path: Optional[str]
    callbacks: "Optional[Union[Callback, Sequence[Callback]]]"
    loggers: "Optional[Union[Logger, Sequence[Logger]]]"
    middlewares: Optional[list[Any]]
    max_payload_size: Optional[Union[int, float, str]]
    healthcheck_path: str
    info_path: str
    shutdown_path: str
    enable_shutdown_api: bool
    model_metadata: Optional[dict[str, Any]]
    disable_openapi_url: bool
    loop: Any
    fast_queue: bool
    restart_workers: bool
    track_requests: bool
    num_api_servers: Optional[int]
    api_server_worker_type: Optional[Literal["process", "thread"]]
    pretty_logs: bool


class RunOptions(ServerOptions, total=False):
    """Keywords of ``run_servers``, ``start`` and ``LitServer.run``."""

    generate_client_file: bool
    num_api_servers: Optional[int]
    api_server_worker_type: Optional[Literal["process", "thread"]]
    pretty_logs: bool
    log_level: str
    ssl_certfile: File
    ssl_keyfile: File
    ssl_ca_certs: File
    ssl_cert_reqs: int
    ssl_version: int
