"""w1 in PyTriton, through Triton's `generate` interface, which takes plain JSON."""

import sys

import numpy as np
import work
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def square(requests):
    return [{"output": work.square(request["input"])} for request in requests]


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1", http_port=int(sys.argv[2]), allow_grpc=False, allow_metrics=False
    )
    # The harness removes the working directory.
    with Triton(config=config, workspace="triton") as triton:
        triton.bind(
            model_name="square",
            infer_func=square,
            inputs=[Tensor(name="input", dtype=np.float64, shape=(1,))],
            outputs=[Tensor(name="output", dtype=np.float64, shape=(1,))],
            config=ModelConfig(batching=False),
        )
        triton.serve()
