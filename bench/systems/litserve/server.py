"""The workloads in LitServe."""

import sys

import litserve as ls
import work
from pydantic import Base64Bytes, BaseModel

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


class Body(BaseModel):
    image: Base64Bytes


class TypedImage(Noop):
    def decode_request(self, request: Body):
        return request.image

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


APIS = {
    "w1": Noop,
    "w1mw": Noop,
    "w2": Batch,
    "w3": Stream,
    "w5": Image,
    "w5typed": TypedImage,
    "w6": Embed,
    "w6b1": Embed,
    "w7": Batch,
    "w7b": Batch,
    "w8": Crash,
}


def apis():
    if WORKLOAD == "w4":
        return [Noop(api_path="/fast"), Slow(api_path="/slow")]
    return APIS[WORKLOAD](
        max_batch_size=CONF.max_batch_size,
        batch_timeout=CONF.batch_timeout_s,
        stream=WORKLOAD == "w3",
    )


if __name__ == "__main__":
    server = ls.LitServer(apis(), accelerator="cpu", workers_per_device=CONF.workers)
    if WORKLOAD == "w1mw":
        work.add_middleware(server.app)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
