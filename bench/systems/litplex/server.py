"""The workloads in litplex: the program for LitServe, with another import."""

import os
import sys

import litplex as ls
import work

WORKLOAD, PORT = sys.argv[1], int(sys.argv[2])
CONF = work.CONF[WORKLOAD]


class Noop(ls.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["input"]

    def encode_response(self, output):
        return {"output": output}

    def predict(self, x):
        return work.square(x)


class Batch(Noop):
    def predict(self, xs):
        return work.square_batch(xs, CONF.sleep_s)


class Slow(Noop):
    def predict(self, x):
        return work.square_batch([x], CONF.sleep_s)[0]


class Crash(Noop):
    def predict(self, x):
        return work.square_or_die(x)


class Stream(Noop):
    def predict(self, n):
        yield from range(int(n))

    def encode_response(self, outputs):
        for i in outputs:
            yield {"output": i}


class Image(Noop):
    def decode_request(self, request):
        return request["image"]

    def predict(self, text):
        return work.image(text)


# pydantic is imported for this workload alone: it would show in the memory of the others.
if WORKLOAD == "w5typed":
    from typing import Annotated

    from pydantic import BaseModel

    class Body(BaseModel):
        image: Annotated[bytes, ls.Base64]

    class TypedImage(Noop):
        def decode_request(self, request: Body):
            return request.image

        def predict(self, data):
            return work.crc(data)


class RawImage(Noop):
    def decode_request(self, request):
        return request

    def predict(self, data):
        return work.crc(data)


class Embed(ls.LitAPI):
    def setup(self, device):
        self.model = work.Embedder()

    def decode_request(self, request):
        return request["text"]

    def predict(self, texts):
        return self.model(texts) if CONF.max_batch_size > 1 else self.model([texts])[0]

    def encode_response(self, output):
        return {"embedding": output.tolist()}


class Echo(Noop):
    def predict(self, x):
        return x


class Relay(Noop):
    echo = ls.endpoint("/echo")

    def predict(self, x):
        return self.echo({"input": x})["output"]


class AsyncRelay(Noop):
    echo = ls.endpoint("/echo")

    async def predict(self, x):
        return (await self.echo.acall({"input": x}))["output"]


APIS = {
    "w1": Noop,
    "w1mw": Noop,
    "w2": Batch,
    "w3": Stream,
    "w5": Image,
    "w5raw": RawImage,
    "w6": Embed,
    "w6b1": Embed,
    "w7": Batch,
    "w7b": Batch,
    "w8": Crash,
    "w9hop": Echo,
}
RELAYS = {"w9": Relay, "w9async": AsyncRelay}


# In w7 and w7b an answer after a second counts for nothing: here that is the request's budget.
OPTIONS = {"w6": {"cost": "text:length"}, "w7": {"timeout": 1}, "w7b": {"timeout": 1}}


def options():
    workers = int(os.environ.get("BENCH_WORKERS", CONF.workers))
    own = {} if os.environ.get("BENCH_PLAIN") else OPTIONS.get(WORKLOAD, {})
    return {"workers_per_device": workers, **own}


def server_options():
    threads = os.environ.get("BENCH_HTTP_THREADS")
    return {"http_threads": int(threads)} if threads else {}


def apis():
    if WORKLOAD == "w4":
        return [Noop(api_path="/fast"), Slow(api_path="/slow")]
    if WORKLOAD in RELAYS:
        return [RELAYS[WORKLOAD](api_path="/predict"), Echo(api_path="/echo")]
    api = TypedImage if WORKLOAD == "w5typed" else APIS[WORKLOAD]
    return api(
        max_batch_size=CONF.max_batch_size,
        batch_timeout=CONF.batch_timeout_s,
        stream=WORKLOAD == "w3",
    )


if __name__ == "__main__":
    server = ls.LitServer(apis(), accelerator="cpu", **options())
    if WORKLOAD == "w1mw":
        work.add_middleware(server.app)
    server.run(host="127.0.0.1", port=PORT, **server_options())
