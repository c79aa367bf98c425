"""w1 in Ray Serve, and the two-hop echo of w9: a deployment with a handle of another, one replica each."""

import signal
import sys

import work
from ray import serve
from starlette.requests import Request

WORKLOAD, PORT = sys.argv[1], int(sys.argv[2])

# The number of requests that a replica takes at a time; its default of 5 is below the connections.
OPTIONS = {"num_replicas": 1, "max_ongoing_requests": 1024}


@serve.deployment(**OPTIONS)
class Square:
    async def __call__(self, request: Request):
        return {"output": work.square((await request.json())["input"])}


@serve.deployment(**OPTIONS)
class Echo:
    async def __call__(self, request):
        value = await request.json() if isinstance(request, Request) else request
        return {"output": value["input"]}


@serve.deployment(**OPTIONS)
class Relay:
    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, request: Request):
        return await self.inner.remote(await request.json())


def graph():
    if WORKLOAD == "w1":
        return Square.bind()
    return Echo.bind() if WORKLOAD == "w9hop" else Relay.bind(Echo.bind())


if __name__ == "__main__":
    # Blocked in all threads that Ray starts, and taken by `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(graph(), route_prefix="/predict")
    signal.sigwait([signal.SIGTERM])
    serve.shutdown()
