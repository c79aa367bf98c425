"""Several APIs behind one socket, with paths, metadata, keys and limits of their own."""

import sys

import litserve as ls


class Batched(ls.LitAPI):
    def decode_request(self, request):
        return request["x"]

    def predict(self, xs):
        return [x * x for x in xs]

    def encode_response(self, output):
        return {"output": output}


class Streamed(ls.LitAPI):
    def decode_request(self, request):
        return request["n"]

    def predict(self, n):
        yield from range(n)

    def encode_response(self, outputs):
        for output in outputs:
            yield {"output": output}


class Words(Streamed):
    def encode_response(self, outputs):
        for output in outputs:
            yield f"word{output} "


class Awaited(ls.LitAPI):
    async def decode_request(self, request):
        return request["x"]

    async def predict(self, x):
        return x + 1

    async def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    apis = [
        Batched(max_batch_size=4, batch_timeout=0.01, api_path="/v1/batched"),
        Batched(max_batch_size=4, batch_timeout=0.01, api_path="/metrics"),
        Batched(max_batch_size=4, batch_timeout=0.01, api_path="/livez"),
        Streamed(stream=True, api_path="/streamed"),
        Words(stream=True, api_path="/words"),
        Awaited(enable_async=True, api_path="/awaited"),
    ]
    server = ls.LitServer(
        apis,
        accelerator="cpu",
        devices=1,
        workers_per_device={"/awaited": 2},
        model_metadata={"name": "several"},
        max_payload_size=1000,
        healthcheck_path="/healthz",
        info_path="/about",
        enable_shutdown_api=True,
        shutdown_path="/stop",
        fast_queue=True,
    )
    server.run(port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1)
