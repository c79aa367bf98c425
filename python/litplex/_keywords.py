"""The options by name and type; generated from ``crates/config/src/options.rs``."""

from typing import Any, Literal, Optional, TypedDict, Union

Devices = Union[int, Literal["auto"], list[int], tuple[int, ...]]
Indices = Union[list[int], tuple[int, ...]]
Texts = Union[list[str], tuple[str, ...]]


class ServerOptions(TypedDict, total=False):
    """Options of the whole server, beside ``host`` and ``port``: keywords of ``run_servers`` and
    ``start``.

    Attributes:
        grace: How long requests in flight may take to finish once the server was asked to stop.
            Value: a number of seconds, at least 0. Default: 30.
        max_buffered_bytes: Bytes that the server holds for its clients at a time: bodies of
            requests as they arrive and what is made of them, and answers that wait for their
            clients. Requests beyond that are answered 503. Value: an integer of at least 1.
            Default: 1073741824.
        healthcheck_path: Where a GET tells whether every endpoint can serve: 200, or 503 and why.
            Value: a path that begins with "/", without "?", "#", "{", "*" or control characters.
            Default: /health.
        livez_path: Where a GET is answered 200 for as long as the server runs. Everybody may ask.
            Value: a path that begins with "/", without "?", "#", "{", "*" or control characters.
            Default: /livez.
        readyz_path: Where a GET tells whether every endpoint can serve: 200, or 503, and no more.
            Everybody may ask. Value: a path that begins with "/", without "?", "#", "{", "*" or
            control characters. Default: /readyz.
        info_path: Where a GET describes the server and its endpoints. Value: a path that begins
            with "/", without "?", "#", "{", "*" or control characters. Default: /info.
        metrics_path: Where a GET reads the metrics, as Prometheus does; false has no such route. A
            route of the program's own at this path takes its place. Value: a path that begins with
            "/", without "?", "#", "{", "*" or control characters, or false. Default: /metrics.
        shutdown_path: Where a POST that carries the key in LIT_SHUTDOWN_API_KEY (``Authorization:
            Bearer …``) stops the server, as SIGTERM does. Without it there is no such route. Value:
            a path that begins with "/", without "?", "#", "{", "*" or control characters. Default:
            none.
        model_metadata: What ``/info`` shows under ``model``. Value: a table. Default: none.
        openapi: Whether ``/openapi.json`` describes the endpoints, and ``/docs`` and ``/redoc``
            show it. Value: true or false. Default: true.
        compression: Compresses streams, and answers of 1000 bytes and more, for clients that accept
            it (``Accept-Encoding``): with all three, or with those named, the preferred first. Each
            piece of a stream goes out at once. What is compressed already, such as images, is left
            as it is. Value: true, false, or a list of "zstd", "br" and "gzip". Default: false.
        api_keys: Who may call: names, each with the environment variable that holds its key, or the
            SHA-256 of the key. Callers send it as ``X-API-Key`` or ``Authorization: Bearer …``.
            Endpoints with keys of their own take those instead. ``litplex key`` makes keys. Without
            any, everybody may. Value: a table of names, each with "env:NAME" or "sha256:…".
            Default: none.
        api_keys_file: A file with more keys: lines of a name and ``sha256:…``, as ``litplex key``
            prints them. It is read again when it changes. Value: the path of a file. Default: none.
        jwt_issuer: With ``jwt_audience`` and ``jwt_jwks``: callers may send a JSON Web Token
            (``Authorization: Bearer …``) that this issuer has signed, its ``iss``. Where there are
            keys too, either lets in. Value: the issuer of tokens, such as "https://id.example.org".
            Default: none.
        jwt_audience: With ``jwt_issuer``: what the ``aud`` of a token must be, or have. Value: the
            audience of tokens, such as "models". Default: none.
        jwt_jwks: With ``jwt_issuer``: its public keys, as a JSON Web Key Set. A file is read again
            when it changes; a URL every five minutes, and when a token is signed with a key that is
            not known. Value: the path of a file, or a URL that begins with "https://" or "http://".
            Default: none.
        jwt_ca: With a ``jwt_jwks`` that begins with ``https://``: whose certificate the issuer must
            have, one that one of these has signed. Value: a PEM file with certificates, or its
            text. Default: those that browsers know.
        request_id: Whether each request has an id: its own ``X-Request-Id``, or a new one. Answers,
            the access log, the context of hooks, and what hooks print have it. Value: true or
            false. Default: false.
        server_timing: Whether each answer says in the header ``Server-Timing`` how many
            milliseconds passed from the request's headers to its own: ``total;dur=12.345``. Value:
            true or false. Default: false.
        access_log: Where a line is written for each request: JSON with time, client, holder of the
            key, method, path, status, bytes, duration in seconds and id. ``-`` on a terminal gives
            a short line for people instead. A file that is moved away is made anew. Value: the path
            of a file, or "-" for standard output. Default: none.
        otlp_endpoint: Where the traces of requests are sent, as OTLP over HTTP. Without it: where
            OTEL_EXPORTER_OTLP_ENDPOINT says, and if that is not set, nowhere. Value: the address of
            a collector such as "http://127.0.0.1:4318". Default: none.
        trace_ratio: The share of requests that are traced, of those that are not part of a trace
            already. What a client has decided in ``traceparent`` holds. Value: a number from 0 to
            1. Default: 1.
        cors_origins: Pages of which origins may call the server from a browser. Value: a list of
            origins such as "https://app.example.org", or of "*". Default: [].
        allowed_hosts: Under which names the server may be asked (``Host``); requests under others
            are answered 403. Without it, where the server listens on loopback and what is asked for
            needs no key: addresses, ``localhost``, ``host``, and names without a dot. Value: a list
            of names such as "models.example.com", "*.example.com", or of "*". Default: any; on
            loopback, where no key is asked for, those that no web site can have.
        trusted_proxies: Proxies that are believed: where a request comes from one of them, the
            caller's address is the last in ``X-Forwarded-For`` that is none of them, and
            ``X-Forwarded-Proto`` says how it was asked. Limits, the access log and the program's
            app see that address. From others those headers mean nothing. Value: a list of addresses
            and networks such as "10.0.0.0/8". Default: [].
        app_heartbeat: How often the app host, where there is one (middlewares, ``authorize``,
            ``server.app``), must show that its loop runs; after three of them without an answer it
            is killed and started again. Value: a number of seconds greater than 0. Default: 5.
        http_threads: Threads that speak HTTP. Value: an integer from 1 to 256. Default: half the
            cores.
        max_connections: Connections that the server holds at a time; more clients wait until one
            ends. Value: an integer of at least 1. Default: three quarters of the file descriptors
            it may have beside those of its workers, a quarter with an app host.
        keep_alive_timeout: How long a connection may be idle between two requests. Where a load
            balancer or proxy keeps connections to the server, this must be longer than it keeps
            them. Value: a number of seconds greater than 0. Default: 75.
        tls_cert: With ``tls_key``: serves HTTPS with this certificate; those between it and one
            that clients know follow it in the file. Files are read again when they change;
            connections stay. Value: a PEM file with a certificate, or its text. Default: none.
        tls_key: With ``tls_cert``: its private key, without a password. Value: a PEM file with a
            private key, or its text. Default: none.
        tls_client_ca: With ``tls_cert``: clients must have a certificate that one of these has
            signed, itself or through others. Value: a PEM file with certificates, or its text.
            Default: none.
    """

    grace: float
    max_buffered_bytes: int
    healthcheck_path: str
    livez_path: str
    readyz_path: str
    info_path: str
    metrics_path: Union[str, Literal[False]]
    shutdown_path: str
    model_metadata: dict[str, Any]
    openapi: bool
    compression: Union[bool, list[Literal["zstd", "br", "gzip"]]]
    api_keys: dict[str, str]
    api_keys_file: str
    jwt_issuer: str
    jwt_audience: str
    jwt_jwks: str
    jwt_ca: str
    request_id: bool
    server_timing: bool
    access_log: str
    otlp_endpoint: str
    trace_ratio: float
    cors_origins: Texts
    allowed_hosts: Texts
    trusted_proxies: Texts
    app_heartbeat: float
    http_threads: int
    max_connections: int
    keep_alive_timeout: float
    tls_cert: str
    tls_key: str
    tls_client_ca: str


class EndpointOptions(TypedDict, total=False):
    """Options of an endpoint, beside ``path``: keywords of ``LitServer``.

    Attributes:
        args: Constructor arguments for the class that ``api`` names. Value: a table of constructor
            arguments. Default: {}.
        python: The interpreter of the workers, usually one of a virtual environment. It needs
            nothing installed for litplex. Value: the path of a Python interpreter. Default: the one
            that runs the program.
        requirements: What the workers need, as pip reads it: they run in a virtual environment of
            ``python`` that has it, made at the first start (with ``uv`` where it is there) and kept
            in the user's cache until what they ask for changes. ``litplex env`` shows and removes
            such environments. Value: the path of a requirements file. Default: none.
        env: Environment variables to set in the workers. Value: a table of texts. Default: {}.
        cwd: The working directory of the workers: relative paths in ``args`` and in hooks are
            relative to it. Value: the path of a directory. Default: the directory of the file that
            describes the endpoint.
        pythonpath: Where the workers look for modules first. Value: a list of directories. Default:
            [].
        log_level: The least that litplex says about the endpoint, and the level of ``logging`` in
            the workers where the program sets none. Value: one of "debug", "info", "warning",
            "error". Default: info, and Python's own.
        log_file: Where what the workers print goes, and what litplex says about the endpoint,
            instead of standard output and error. Moved away, it is made anew. Value: the path of a
            file. Default: none.
        accelerator: What the workers compute on; ``auto`` takes the GPUs that are there, and the
            CPU otherwise. Value: one of "auto", "cpu", "cuda", "gpu", "mps". Default: auto.
        devices: How many devices, or which. Value: "auto", an integer of at least 1, or a list of
            device indices. Default: auto.
        workers_per_device: Copies of the model on each device. Value: an integer from 1 to 1024.
            Default: 1.
        min_workers: With ``max_workers``, instead of ``workers_per_device``: the fewest workers;
            more are added and removed as load moves. Value: an integer from 0 to 1024. Default:
            none.
        max_workers: With ``min_workers``: the most workers that are added as load moves. Value: an
            integer from 1 to 1024. Default: none.
        threads: CPU threads of each worker: OMP_NUM_THREADS and its like, where nothing else sets
            them, and ``self.threads``. The default divides the cores by all workers of all
            endpoints, or those of ``cpu_affinity`` by the endpoint's own. Value: an integer from 1
            to 1024. Default: a fair share of the cores.
        cpu_affinity: The cores that the workers run on. Value: a list of core numbers. Default:
            all.
        memory_limit: Resident memory of each worker, together with what it started; one that uses
            more is killed and replaced. Value: a number of bytes or a text such as "2GB" or
            "512MiB". Default: none.
        gpu_memory_fraction: The share of its GPU's memory that each worker may take, applied
            through PyTorch, JAX or TensorFlow, and ``onnxruntime_options()``. The shares on one GPU
            may add up to 1. Value: a number above 0 and at most 1. Default: no limit.
        isolate_devices: Whether a worker sees no GPU but its own, which is then ``cuda:0``
            (CUDA_VISIBLE_DEVICES). Value: true or false. Default: false.
        max_concurrency: Requests (or batches) that one worker computes at the same time; above 1
            for ``async`` hooks. Value: an integer from 1 to 65536. Default: 64 for ``async`` hooks,
            else 1.
        max_batch_size: The most requests in one call of ``predict``. Value: an integer from 1 to
            65536. Default: 1.
        batch_timeout: How long a batch may wait to fill, from the arrival of its first request.
            Value: a number of seconds, at least 0. Default: 0.
        cost: What a request costs in a batch, so that the batcher puts like with like: the length,
            the words or the value of a field of the JSON body (dots reach into objects), or the
            size of the body. A Python model may have a ``cost`` hook instead. Value: a field and
            its measure such as "text:length", "text:words" or "tokens:value", or "body:bytes".
            Default: none.
        max_batch_cost: The most that a batch may cost: its size times the cost of its most
            expensive request. Value: a number greater than 0. Default: none.
        retry_batch_singly: Whether the items of a batch that raised are computed again one by one,
            so that one bad input costs only itself. Value: true or false. Default: as
            ``idempotent``.
        stream: Whether ``predict`` is a generator whose values are sent as they come. Value: true
            or false. Default: false.
        timeout: The time budget of a request, from its arrival to the last byte of its answer; for
            a stream, to its first chunk. A client may shorten it with the header
            ``X-Request-Timeout``, in seconds. Value: a number of seconds greater than 0. Default:
            30.
        chunk_timeout: The time budget of a stream between two chunks. Value: a number of seconds
            greater than 0. Default: as ``timeout``.
        ping_interval: After how long a silence an event stream, also of a chat, is sent a comment
            (``: ping``), so that proxies do not close it. It begins with the first chunk. Value: a
            number of seconds greater than 0. Default: none.
        queue_timeout: How long a request may wait for a worker; then it is answered 504. Once a
            worker has begun with it, ``timeout`` alone counts. Value: a number of seconds greater
            than 0. Default: as ``timeout``.
        kill_after: Seconds past the endpoint's ``timeout`` (of a stream, past its
            ``chunk_timeout``) after which a worker that still computes a request is killed and
            replaced; false never does. A client's ``X-Request-Timeout`` does not count. While the
            server stops, what nobody waits for is ended this many seconds after it was given up.
            Value: a number of seconds, at least 0, or false. Default: 10.
        heartbeat: How often a worker's interpreter must show that it runs; one that is silent for
            three of them is killed and replaced. Where it is not set, a worker that computes has
            until ``timeout`` and ``kill_after`` instead: one call into native code may hold the
            interpreter for as long as a request may take. Where it is set, it holds while the
            worker computes, too; large bodies that are being decoded count as life. Value: a number
            of seconds greater than 0. Default: 2.
        idempotent: Whether a request whose worker died may be computed again by another. Value:
            true or false. Default: true, false for streams.
        max_queue: How many requests may wait; further ones are answered 503 at once. Value: an
            integer of at least 1. Default: what the workers can answer within ``timeout``.
        api_keys: Who may call this endpoint, instead of those who may call the server. Value: a
            table of names, each with "env:NAME" or "sha256:…". Default: those of the server.
        api_keys_file: A file with more keys of this endpoint. Value: the path of a file. Default:
            none.
        jwt_scopes: The scopes that a token must have to call this endpoint, all of them, in its
            ``scope`` or ``scp``. An endpoint with keys of its own takes tokens only where it has
            this. Value: a list of scopes. Default: [].
        rate_limit: How many requests each caller may make: the holder of a key, the ``sub`` of a
            token, or an address where keys are not asked for. Further ones are answered 429 with
            ``Retry-After``. Value: a number of requests in a time, such as "10/s", "600/min" or
            "1000/h". Default: none.
        rate_burst: How many of them may come at once. Value: an integer from 1 to 1000000. Default:
            all of ``rate_limit``.
        max_requests_per_caller: How many requests of one caller may be in flight; further ones are
            answered 429. Value: an integer of at least 1. Default: none.
        max_body_bytes: The largest request body; larger ones are answered 413. Value: an integer
            from 1 to 536870912. Default: 67108864.
    """

    args: dict[str, Any]
    python: str
    requirements: str
    env: dict[str, str]
    cwd: str
    pythonpath: Texts
    log_level: Literal["debug", "info", "warning", "error"]
    log_file: str
    accelerator: Optional[Literal["auto", "cpu", "cuda", "gpu", "mps"]]
    devices: Devices
    workers_per_device: Union[int, list[int], tuple[int, ...], dict[str, int]]
    min_workers: int
    max_workers: int
    threads: int
    cpu_affinity: Indices
    memory_limit: Union[int, str]
    gpu_memory_fraction: float
    isolate_devices: bool
    max_concurrency: int
    max_batch_size: int
    batch_timeout: float
    cost: str
    max_batch_cost: float
    retry_batch_singly: bool
    stream: bool
    timeout: float
    chunk_timeout: float
    ping_interval: float
    queue_timeout: float
    kill_after: Union[float, Literal[False]]
    heartbeat: float
    idempotent: bool
    max_queue: int
    api_keys: dict[str, str]
    api_keys_file: str
    jwt_scopes: Texts
    rate_limit: str
    rate_burst: int
    max_requests_per_caller: int
    max_body_bytes: int
