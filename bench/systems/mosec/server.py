"""The workloads in mosec."""

import os

import work
from mosec import Runtime, Server, SSEWorker, Worker

WORKLOAD = os.environ["BENCH_W"]
CONF = work.CONF[WORKLOAD]


class Noop(Worker):
    def forward(self, data):
        return {"output": work.square(data["input"])}


class Batch(Worker):
    def forward(self, data):
        outputs = work.square_batch([d["input"] for d in data], CONF.sleep_s)
        return [{"output": y} for y in outputs]


class Slow(Worker):
    def forward(self, data):
        return {"output": work.square_batch([data["input"]], CONF.sleep_s)[0]}


class Stream(SSEWorker):
    def forward(self, data):
        for i in range(int(data["input"])):
            self.send_stream_event(f'{{"output": {i}}}')
        return {}


class Image(Worker):
    def forward(self, data):
        return {"output": work.image(data["image"])}


class RawImage(Worker):
    def deserialize(self, data):
        return data

    def forward(self, data):
        return {"output": work.crc(data)}


class Embed(Worker):
    def __init__(self):
        self.model = work.Embedder()

    def forward(self, data):
        if CONF.max_batch_size == 1:
            return {"embedding": self.model([data["text"]])[0].tolist()}
        return [{"embedding": y.tolist()} for y in self.model([d["text"] for d in data])]


class Crash(Worker):
    def forward(self, data):
        return {"output": work.square_or_die(data["input"])}


WORKERS = {
    "w1": Noop,
    "w2": Batch,
    "w3": Stream,
    "w5": Image,
    "w5raw": RawImage,
    "w6": Embed,
    "w6b1": Embed,
    "w7": Batch,
    "w7b": Batch,
    "w8": Crash,
}

if __name__ == "__main__":
    server = Server()
    if WORKLOAD == "w4":
        server.register_runtime({"/fast": [Runtime(Noop)], "/slow": [Runtime(Slow)]})
    else:
        server.append_worker(
            WORKERS[WORKLOAD],
            num=CONF.workers,
            max_batch_size=CONF.max_batch_size,
            max_wait_time=int(CONF.batch_timeout_s * 1000),
            route="/predict",
        )
    server.run()
