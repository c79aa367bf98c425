"""The options by name and type; generated from ``crates/config/src/options.rs``."""

from typing import Any, Literal, Optional, TypedDict, Union

Devices = Union[int, Literal["auto"], list[int], tuple[int, ...]]
Indices = Union[list[int], tuple[int, ...]]
Texts = Union[list[str], tuple[str, ...]]


class ServerOptions(TypedDict, total=False):
    """Options of the whole server, beside ``host`` and ``port``: keywords of ``run_servers`` and
    ``start``.

    Attributes:
        grace: The time in seconds that requests in flight have to finish after the server was asked
            to stop. Value: a number of seconds, at least 0. Default: 30.
        max_buffered_bytes: The memory in bytes that the server uses for its clients at a time:
            request bodies and the data derived from them, and responses that wait for their
            clients. Requests above the limit are answered with 503. Value: an integer of at least
            1. Default: 1073741824.
        healthcheck_path: The path of the health check: GET responds with 200 if every endpoint can
            serve, otherwise with 503 and the reasons. Value: a path that begins with "/", without
            "?", "#", "{", "*" or control characters. Default: /health.
        livez_path: The path of the liveness probe: GET responds with 200 while the server runs. It
            needs no key. Value: a path that begins with "/", without "?", "#", "{", "*" or control
            characters. Default: /livez.
        readyz_path: The path of the readiness probe: GET responds with 200 if every endpoint can
            serve, otherwise with 503, without reasons. It needs no key. Value: a path that begins
            with "/", without "?", "#", "{", "*" or control characters. Default: /readyz.
        info_path: The path of the description of the server and its endpoints (GET). Value: a path
            that begins with "/", without "?", "#", "{", "*" or control characters. Default: /info.
        metrics_path: The path of the metrics for Prometheus (GET); false turns the route off. A
            route of the program's own app at this path has precedence. Value: a path that begins
            with "/", without "?", "#", "{", "*" or control characters, or false. Default: /metrics.
        shutdown_path: The path at which a POST with the key of LIT_SHUTDOWN_API_KEY
            (``Authorization: Bearer …``) stops the server, as SIGTERM does. Without this option
            there is no such route. Value: a path that begins with "/", without "?", "#", "{", "*"
            or control characters. Default: none.
        model_metadata: The value that ``/info`` shows under ``model``. Value: a table. Default:
            none.
        openapi: Whether the server has ``/openapi.json``, which describes the endpoints, and
            ``/docs`` and ``/redoc``, which show the description. Value: true or false. Default:
            true.
        compression: Compresses streams, and responses of at least 1000 bytes, for clients that
            accept it (``Accept-Encoding``): with all three codings, or with the listed ones, the
            preferred first. Each piece of a stream is sent at once. Types that are already
            compressed, such as images, are not compressed again. Value: true, false, or a list of
            "zstd", "br" and "gzip". Default: false.
        api_keys: The keys of callers: names, each with the environment variable that contains the
            key, or with the SHA-256 of the key. Callers send a key as ``X-API-Key`` or
            ``Authorization: Bearer …``. The keys of an endpoint replace those of the server.
            ``litplex key`` creates keys. Without keys, every client may call. Value: a table of
            names, each with "env:NAME" or "sha256:…". Default: none.
        api_keys_file: A file with more keys: lines of a name and ``sha256:…``, as ``litplex key``
            prints them. The file is reloaded when it changes. Value: the path of a file. Default:
            none.
        jwt_issuer: With ``jwt_audience`` and ``jwt_jwks``: accepts JSON Web Tokens
            (``Authorization: Bearer …``) that this issuer (claim ``iss``) has signed. If keys are
            configured too, either a key or a token is accepted. Value: the issuer of tokens, such
            as "https://id.example.org". Default: none.
        jwt_audience: With ``jwt_issuer``: the value that the claim ``aud`` of a token must have or
            contain. Value: the audience of tokens, such as "models". Default: none.
        jwt_jwks: With ``jwt_issuer``: the issuer's public keys, as a JSON Web Key Set. A file is
            reloaded when it changes; a URL every five minutes, and when a token is signed with an
            unknown key. Value: the path of a file, or a URL that begins with "https://" or
            "http://". Default: none.
        jwt_ca: With a ``jwt_jwks`` that begins with ``https://``: the certificates of the
            authorities that may sign the issuer's certificate. Value: a PEM file with certificates,
            or its text. Default: the public authorities.
        admin_port: The port of the admin API, beside the private socket that it always has; 0
            chooses a free port. It needs ``admin_keys`` or ``admin_keys_file``, and speaks TLS if
            the server does. Value: an integer from 0 to 65535. Default: none.
        admin_host: The address on which ``admin_port`` listens. Value: an address such as
            "127.0.0.1" or "0.0.0.0". Default: 127.0.0.1.
        admin_dashboard: Whether the server's own port has the dashboard at ``/dashboard``, for keys
            of operators: ``admin_keys`` and ``admin_read_keys``. Below it is the admin API, which
            it uses. Value: true or false. Default: false.
        admin_keys: The keys of operators, who may use the whole admin API on ``admin_port`` and
            through ``admin_dashboard``; in the form of ``api_keys``. Keys of callers do not open
            it. Value: a table of names, each with "env:NAME" or "sha256:…". Default: none.
        admin_keys_file: A file with more keys of operators, in the form of ``api_keys_file``.
            Value: the path of a file. Default: none.
        admin_read_keys: The keys of operators who may only look: ``GET`` requests of the admin API.
            Value: a table of names, each with "env:NAME" or "sha256:…". Default: none.
        admin_read_keys_file: A file with more keys of operators who may only look. Value: the path
            of a file. Default: none.
        request_id: Whether each request has an id: its own ``X-Request-Id``, or a new one. The id
            is in the response, the access log, the context of hooks and the output of hooks. Value:
            true or false. Default: false.
        server_timing: Whether each response has the header ``Server-Timing`` with the milliseconds
            from the request's headers to the response's headers: ``total;dur=12.345``. Value: true
            or false. Default: false.
        access_log: The access log, with one line of JSON per request: time, client, name of the
            key, method, path, status, bytes, duration in seconds and id. ``-`` on a terminal writes
            a short readable line instead. If the file is moved away, a new one is created. Value:
            the path of a file, or "-" for standard output. Default: none.
        recent_requests: The number of requests of each endpoint that the server remembers with
            their stages, for ``litplex requests`` and the dashboard: the last ones, and beside them
            the last 50 that failed and the 20 slowest of the last 15 minutes. All endpoints
            together take at most 16 MiB. 0 turns it off. Value: an integer from 0 to 10000.
            Default: 200.
        keep_bodies: The number of bytes of each request's and each response's body that are
            remembered with a recent request, if it is JSON or text. In JSON, the texts of members
            whose names look like those of secrets (``password``, ``api_key``, ``token``, …) are
            masked. 0 keeps no bodies. Value: an integer from 0 to 1048576. Default: 0.
        otlp_endpoint: The collector to which traces of requests are sent, as OTLP over HTTP. The
            default is OTEL_EXPORTER_OTLP_ENDPOINT; if that is not set, traces are off. Value: the
            address of a collector such as "http://127.0.0.1:4318". Default: none.
        trace_ratio: The share of requests that are traced, among those that are not part of a trace
            already. The decision in a client's ``traceparent`` has precedence. Value: a number from
            0 to 1. Default: 1.
        cors_origins: The origins whose pages may call the server from a browser. Value: a list of
            origins such as "https://app.example.org", or of "*". Default: [].
        allowed_hosts: The names under which the server may be reached (``Host``); requests under
            other names are answered with 403. By default any name is allowed, except where the
            server listens on loopback and the route needs no key: there the allowed names are
            addresses, ``localhost``, ``host``, and names without a dot. Value: a list of names such
            as "models.example.com", "*.example.com", or of "*". Default: any; on loopback, where no
            key is needed, names that a web site cannot have.
        trusted_proxies: Proxies whose headers are trusted: for requests from them, the caller's
            address is the last address in ``X-Forwarded-For`` that is not a trusted proxy, and
            ``X-Forwarded-Proto`` is the scheme. Limits, the access log and the program's app see
            that address. On requests from other addresses these headers are ignored. Value: a list
            of addresses and networks such as "10.0.0.0/8". Default: [].
        app_heartbeat: The interval in seconds at which the app host, if there is one (middlewares,
            ``authorize``, ``server.app``), must show that its loop runs; after three intervals
            without an answer it is killed and started again. Value: a number of seconds greater
            than 0. Default: 5.
        http_threads: The number of threads that handle HTTP. Value: an integer from 1 to 256.
            Default: half the cores.
        device_concurrency: The most workers that compute at the same time on a device, or on the
            same cores, while workers of several endpoints want it. The endpoints then take turns,
            each for its share (``device_weight``), and a worker of a Python model is interrupted
            for the turn of another one. Value: an integer of at least 1, or false. Default: false;
            if an endpoint has a ``device_weight``, on cores as many as they can compute at full
            speed, on a GPU any number.
        max_connections: The most connections at a time; further clients wait until a connection
            ends. Value: an integer of at least 1. Default: three quarters of the file descriptors
            that are not reserved for workers; a quarter with an app host.
        memory_budget: The memory that all workers together may have. A worker starts only when
            there is room for it: others leave for it (those above ``min_workers``, unless
            ``pinned``), or its requests wait. Value: a number of bytes or a text such as "2GB" or
            "512MiB". Default: the machine's, or the container's, less a tenth.
        gpu_memory_budget: The memory of each GPU that all workers together may have. Value: a
            number of bytes or a text such as "2GB" or "512MiB". Default: all of it less a tenth.
        keep_alive_timeout: The time in seconds that a connection may be idle between two requests.
            If a load balancer or proxy keeps connections to the server, this must be longer than
            its own limit. Value: a number of seconds greater than 0. Default: 75.
        tls_cert: With ``tls_key``: serves HTTPS with this certificate. The file also contains the
            intermediate certificates, after the server's own. Files are reloaded when they change;
            open connections continue. Value: a PEM file with a certificate, or its text. Default:
            none.
        tls_key: With ``tls_cert``: the private key of the certificate, without a password. Value: a
            PEM file with a private key, or its text. Default: none.
        tls_client_ca: With ``tls_cert``: clients must present a certificate that one of these
            authorities has signed, directly or through intermediates. Value: a PEM file with
            certificates, or its text. Default: none.
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
    admin_port: int
    admin_host: str
    admin_dashboard: bool
    admin_keys: dict[str, str]
    admin_keys_file: str
    admin_read_keys: dict[str, str]
    admin_read_keys_file: str
    request_id: bool
    server_timing: bool
    access_log: str
    recent_requests: int
    keep_bodies: int
    otlp_endpoint: str
    trace_ratio: float
    cors_origins: Texts
    allowed_hosts: Texts
    trusted_proxies: Texts
    app_heartbeat: float
    http_threads: int
    device_concurrency: Union[int, Literal[False]]
    max_connections: int
    memory_budget: Union[int, str]
    gpu_memory_budget: Union[int, str]
    keep_alive_timeout: float
    tls_cert: str
    tls_key: str
    tls_client_ca: str


class EndpointOptions(TypedDict, total=False):
    """Options of an endpoint, beside ``path``: keywords of ``LitServer``.

    Attributes:
        name: The name of the endpoint: for clients, in ``/v1/models`` and the field ``model`` of a
            request, and for ``litplex scale`` and calls of other endpoints. No other endpoint may
            have it. Value: a name that does not begin with "/", without control characters.
            Default: the name of its class.
        aliases: Further names of the endpoint, which no other endpoint may have. Value: a list of
            names that do not begin with "/", without control characters. Default: [].
        default_model: Whether the endpoint gets the requests that name no model, if several
            endpoints share its path. Value: true or false. Default: false.
        args: Constructor arguments for the class that ``api`` names. Value: a table of constructor
            arguments. Default: {}.
        python: The interpreter of the workers, usually that of a virtual environment. litplex needs
            no package in it. Value: the path of a Python interpreter. Default: the one that runs
            the program.
        requirements: The packages of the workers, in pip's format: the workers run in a virtual
            environment of ``python`` with these packages. It is created at the first start (with
            ``uv`` if that is installed) and kept in the user's cache until the requirements change.
            ``litplex env`` shows and removes such environments. Value: the path of a requirements
            file. Default: none.
        env: Environment variables to set in the workers. Value: a table of texts. Default: {}.
        cwd: The working directory of the workers: relative paths in ``args`` and in hooks are
            relative to it. Value: the path of a directory. Default: the directory of the file that
            describes the endpoint.
        pythonpath: Directories in which the workers look for modules first. Value: a list of
            directories. Default: [].
        preload: The modules of the workers' template: a process that has imported them, and from
            which workers are forked, so that these start sooner and share its memory. With ``[]``
            there is no template. Value: a list of module names. Default: the modules that earlier
            workers took long to import, if the number of workers varies.
        log_level: The level of litplex's lines about the endpoint, and the level of ``logging`` in
            the workers unless the program sets one. Value: one of "debug", "info", "warning",
            "error". Default: info, and Python's own.
        log_file: The file for the output of the workers and litplex's lines about the endpoint,
            instead of standard output and error. If the file is moved away, a new one is created.
            Value: the path of a file. Default: none.
        accelerator: The device type of the workers; ``auto`` uses the GPUs if there are any,
            otherwise the CPU. Value: one of "auto", "cpu", "cuda", "gpu", "mps". Default: auto.
        devices: The number of devices, or a list of them. Value: "auto", an integer of at least 1,
            or a list of device indices. Default: auto.
        workers_per_device: Copies of the model on each device. Value: an integer from 1 to 1024.
            Default: 1.
        min_workers: With ``max_workers``, instead of ``workers_per_device``: the minimum number of
            workers; more are added and removed as the load changes. Value: an integer from 0 to
            1024. Default: none.
        max_workers: With ``min_workers``: the maximum number of workers. Value: an integer from 1
            to 1024. Default: none.
        keep_alive: The time in seconds without requests after which the workers above
            ``min_workers`` stop. With ``min_workers = 0`` the endpoint then sleeps, until a request
            starts a worker. With ``auto`` they stop only when another endpoint needs their memory
            more, with ``forever`` only when it can wait no longer for it. Value: a number of
            seconds greater than 0, "auto" or "forever". Default: 60.
        pinned: Whether no worker of the endpoint leaves memory for another endpoint's. Those up to
            ``min_workers`` never do. Value: true or false. Default: false.
        hibernate: Whether a worker that leaves memory hibernates: its process is stopped and its
            memory moved to swap, and the next request wakes it instead of loading the model. Needs
            Linux, swap with room and, for a model on a GPU, one of NVIDIA with a driver from 570
            on; a worker ends as usual where these are missing. Value: true or false. Default:
            false.
        memory: The memory that a worker is expected to need, until one was measured
            (``memory_budget``). It is no limit; ``memory_limit`` is. Value: a number of bytes or a
            text such as "2GB" or "512MiB". Default: what earlier starts have used.
        gpu_memory: The memory of its GPU that a worker is expected to need, until one was measured
            (``gpu_memory_budget``). Value: a number of bytes or a text such as "2GB" or "512MiB".
            Default: what earlier starts have used.
        threads: The CPU threads of each worker: ``self.threads``, and OMP_NUM_THREADS and similar
            variables unless they are already set. The default divides the cores by the workers of
            all endpoints, or the cores of ``cpu_affinity`` by the workers of the endpoint;
            libraries whose threads sleep while they wait may use all. Value: an integer from 1 to
            1024. Default: a fair share of the cores.
        cpu_affinity: The cores that the workers run on. Value: a list of core numbers. Default:
            all.
        device_weight: The share of the endpoint in the time of a device that several endpoints
            want, relative to the weights of the others (``device_concurrency``). Value: a number
            greater than 0. Default: 1.
        memory_limit: The limit of the resident memory of each worker, including its child
            processes. A worker that uses more is killed and replaced. Value: a number of bytes or a
            text such as "2GB" or "512MiB". Default: none.
        gpu_memory_fraction: The share of its GPU's memory that each worker may take, applied
            through PyTorch, JAX or TensorFlow, and ``onnxruntime_options()``. The shares on one GPU
            may add up to 1. Value: a number above 0 and at most 1. Default: no limit.
        isolate_devices: Whether a worker sees only its own GPU, as ``cuda:0``
            (CUDA_VISIBLE_DEVICES). Value: true or false. Default: false.
        max_concurrency: The number of requests (or batches) that one worker computes at the same
            time; more than 1 needs ``async`` hooks. Value: an integer from 1 to 65536. Default: 64
            for ``async`` hooks, else 1.
        max_batch_size: The maximum number of requests in one call of ``predict``. Value: an integer
            from 1 to 65536. Default: 1.
        batch_timeout: The time in seconds that a batch may wait to fill, from the arrival of its
            first request. Value: a number of seconds, at least 0. Default: 0.
        batch_policy: How batches are formed if the model has no ``cost``: ``adaptive`` learns from
            the times of batches whether requests of similar size belong together and which number
            is best, and never makes them slower for long than single requests; ``fixed`` takes as
            many requests as wait, up to ``max_batch_size``, in the order of their arrival. Value:
            one of "adaptive", "fixed". Default: adaptive.
        cost: The cost of a request, by which the batcher groups similar requests: the length, the
            number of words or the value of a field of the JSON body (dots separate nested fields),
            or the size of the body. A Python model may have a ``cost`` hook instead. Value: a field
            and its measure such as "text:length", "text:words" or "tokens:value", or "body:bytes".
            Default: none.
        max_batch_cost: The maximum cost of a batch: its size times the cost of its most expensive
            request. Value: a number greater than 0. Default: none.
        retry_batch_singly: Whether the items of a batch whose computation raised are computed again
            one by one, so that one invalid input does not fail the others. Value: true or false.
            Default: as ``idempotent``.
        stream: Whether ``predict`` is a generator whose values are sent one by one. Value: true or
            false. Default: false.
        timeout: The time budget of a request, from its arrival to the last byte of its response;
            for a stream, to its first chunk. A client may shorten it with the header
            ``X-Request-Timeout``, in seconds. Value: a number of seconds greater than 0. Default:
            30.
        chunk_timeout: The time budget of a stream between two chunks, in seconds. Value: a number
            of seconds greater than 0. Default: as ``timeout``.
        ping_interval: The silence in seconds after which a comment (``: ping``) is sent into an
            event stream, also of a chat, so that proxies do not close it. Comments are sent after
            the first chunk only. Value: a number of seconds greater than 0. Default: none.
        queue_timeout: The time in seconds that a request may wait for a worker; then it is answered
            with 504. Once a worker has begun with the request, only ``timeout`` applies. Value: a
            number of seconds greater than 0. Default: as ``timeout``.
        kill_after: The seconds past the endpoint's ``timeout`` (for a stream, past its
            ``chunk_timeout``) after which a worker that still computes a request is killed and
            replaced; false turns this off. A client's ``X-Request-Timeout`` has no influence. While
            the server stops, an abandoned request is ended this many seconds after it was
            abandoned. Value: a number of seconds, at least 0, or false. Default: 10.
        heartbeat: The interval in seconds at which a worker's interpreter must show that it runs; a
            worker that is silent for three intervals is killed and replaced. If the option is not
            set, a worker that computes has until ``timeout`` and ``kill_after`` instead, because
            one call into native code may hold the interpreter for as long as a request may take. If
            the option is set, it applies while the worker computes, too; the time to decode large
            bodies does not count as silence. Value: a number of seconds greater than 0. Default: 2.
        idempotent: Whether a request whose worker died may be computed again by another worker.
            Value: true or false. Default: true, false for streams.
        max_queue: The number of requests that may wait; further requests are answered with 503 at
            once. Value: an integer of at least 1. Default: what the workers can answer within
            ``timeout``.
        queue_order: The order of waiting requests: ``adaptive`` is that of arrival until the queue
            no longer drains and callers leave it; then the newest go first, and those whose callers
            have most likely given up get a 503. ``arrival`` is always first come, first served.
            Streams and endpoints that are not ``idempotent`` always keep the order of arrival.
            Value: one of "adaptive", "arrival". Default: adaptive.
        warmup: The requests that each worker of the endpoint answers before clients reach it, with
            batching full batches: at the start of the server, and when a reload starts new workers.
            They have the example of a request that the model or the program declares
            (``request_example``). Value: an integer from 0 to 1000. Default: 0, and 1 at a reload
            if there is an example of a request.
        swap: How a reload replaces the workers: ``overlap`` starts the new ones beside the old
            ones; ``in_place`` stops the old ones first, while requests wait in the queue. Value:
            one of "overlap", "in_place". Default: ``overlap``, unless the memory is too small for
            both.
        api_keys: The keys of this endpoint, instead of those of the server. Value: a table of
            names, each with "env:NAME" or "sha256:…". Default: those of the server.
        api_keys_file: A file with more keys of this endpoint. Value: the path of a file. Default:
            none.
        jwt_scopes: The scopes that a token must have, all of them, in its claim ``scope`` or
            ``scp``. An endpoint with keys of its own accepts tokens only if this option is set.
            Value: a list of scopes. Default: [].
        rate_limit: The rate of requests of each caller: the holder of a key, the ``sub`` of a
            token, or an address where no key is needed. Further requests are answered with 429 and
            ``Retry-After``. Value: a number of requests in a time, such as "10/s", "600/min" or
            "1000/h". Default: none.
        rate_burst: The number of these requests that may come at once. Value: an integer from 1 to
            1000000. Default: all of ``rate_limit``.
        max_requests_per_caller: The number of requests of one caller that may be in flight; further
            requests are answered with 429. Value: an integer of at least 1. Default: none.
        batch_callers: The callers whose requests are in the priority class ``batch``, whatever they
            ask for: names of keys, and the ``sub`` of tokens. Value: a list of names. Default: [].
        max_body_bytes: The largest request body in bytes, also after decompression; larger bodies
            are answered with 413. The default, 64 MiB, has room for images and audio, also for
            those that chats carry as ``data:`` URLs; endpoints that take only text can have much
            less. Value: an integer from 1 to 536870912. Default: 67108864.
    """

    name: str
    aliases: Texts
    default_model: bool
    args: dict[str, Any]
    python: str
    requirements: str
    env: dict[str, str]
    cwd: str
    pythonpath: Texts
    preload: Texts
    log_level: Literal["debug", "info", "warning", "error"]
    log_file: str
    accelerator: Optional[Literal["auto", "cpu", "cuda", "gpu", "mps"]]
    devices: Devices
    workers_per_device: Union[int, list[int], tuple[int, ...], dict[str, int]]
    min_workers: int
    max_workers: int
    keep_alive: Union[float, Literal["auto", "forever"]]
    pinned: bool
    hibernate: bool
    memory: Union[int, str]
    gpu_memory: Union[int, str]
    threads: int
    cpu_affinity: Indices
    device_weight: float
    memory_limit: Union[int, str]
    gpu_memory_fraction: float
    isolate_devices: bool
    max_concurrency: int
    max_batch_size: int
    batch_timeout: float
    batch_policy: Literal["adaptive", "fixed"]
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
    queue_order: Literal["adaptive", "arrival"]
    warmup: int
    swap: Literal["overlap", "in_place"]
    api_keys: dict[str, str]
    api_keys_file: str
    jwt_scopes: Texts
    rate_limit: str
    rate_burst: int
    max_requests_per_caller: int
    batch_callers: Texts
    max_body_bytes: int
