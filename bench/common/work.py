"""The models' work, the same in every Python system."""

import base64
import os
import time
import zlib
from typing import NamedTuple


class Conf(NamedTuple):
    max_batch_size: int = 1
    batch_timeout_s: float = 0.0
    sleep_s: float = 0.0
    workers: int = 1


CONF = {
    "w1": Conf(),
    "w1mw": Conf(),
    "w2": Conf(max_batch_size=32, batch_timeout_s=0.005, sleep_s=0.005),
    "w3": Conf(),
    "w4": Conf(sleep_s=0.05),
    "w5": Conf(),
    "w5raw": Conf(),
    "w5typed": Conf(),
    "w6": Conf(max_batch_size=16, batch_timeout_s=0.005),
    "w6b1": Conf(),
    "w7": Conf(max_batch_size=32, batch_timeout_s=0.005, sleep_s=0.005),
    "w7b": Conf(max_batch_size=32, batch_timeout_s=0.005, sleep_s=0.05),
    "w8": Conf(sleep_s=0.005, workers=2),
    "w9": Conf(),
    "w9async": Conf(),
    "w9hop": Conf(),
}


def add_middleware(app):
    """Adds the typical first middleware, which `w1mw` measures."""

    @app.middleware("http")
    async def log_requests(request, call_next):
        start = time.time()
        response = await call_next(request)
        response.headers["X-Process-Time"] = str(time.time() - start)
        return response


def square(x):
    return x * x


def square_batch(xs, sleep_s):
    if sleep_s:
        time.sleep(sleep_s)
    return [x * x for x in xs]


def square_or_die(x):
    if x == -1:
        os._exit(1)
    time.sleep(0.005)
    return x * x


def image(text):
    return crc(base64.b64decode(text))


def crc(data):
    return zlib.crc32(data)


class Embedder:
    def __init__(self, folder=None):
        import numpy as np
        import onnxruntime as ort
        from tokenizers import Tokenizer

        folder = folder or os.environ["BENCH_MODEL"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.np = np
        self.session = ort.InferenceSession(
            folder + "/model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()

    def __call__(self, texts):
        encoded = self.tokenizer.encode_batch(list(texts))
        array = self.np.array
        inputs = {
            "input_ids": array([e.ids for e in encoded], "int64"),
            "attention_mask": array([e.attention_mask for e in encoded], "int64"),
        }
        return self.session.run(None, inputs)[0]
