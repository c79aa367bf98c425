"""A program whose hooks and callbacks record their inputs, with streams."""

import sys

import litserve as ls


class Batched(ls.LitAPI):
    def batch(self, inputs, context):
        for x, one in zip(inputs, context):
            one["x"] = x
        return inputs

    def predict(self, inputs, context):
        return [one["x"] for one in context]

    def unbatch(self, output, context):
        return [[x, one["x"], len(context)] for x, one in zip(output, context)]


class Formatted(ls.LitAPI):
    def predict(self, n):
        yield from range(n)

    def encode_response(self, outputs):
        for output in outputs:
            yield {"output": output}
        yield "end"

    def format_encoded_response(self, data):
        return f"<{super().format_encoded_response(data)}>"


class FormattedBatch(Formatted):
    def predict(self, inputs):
        for step in range(2):
            yield [x + step for x in inputs]

    def unbatch(self, outputs, context):
        for output in outputs:
            yield [x * len(context) for x in output]

    def encode_response(self, outputs):
        for output in outputs:
            yield [{"output": x} for x in output]


class Echo(ls.LitAPI):
    def predict(self, x):
        if x == "wrong":
            raise ValueError("a secret")
        return x


class Seen(ls.Callback):
    def __init__(self):
        self.seen = []

    def on_server_start(self, litserver):
        self.seen = ["start"]

    def on_request(self, active_requests, litserver):
        self.seen.append(f"request {active_requests} {litserver.active_requests}")

    def on_response(self, litserver):
        self.seen.append("response")
        raise ValueError("it is logged")


callback = Seen()
apis = [
    Batched(max_batch_size=4, batch_timeout=0.01, api_path="/batched"),
    Formatted(stream=True, api_path="/formatted"),
    FormattedBatch(stream=True, max_batch_size=2, batch_timeout=0.01, api_path="/formatted-batch"),
    Echo(api_path="/echo"),
]
server = ls.LitServer(apis, accelerator="cpu", callbacks=callback, track_requests=True)


@server.app.get("/seen")
async def seen():
    return {"seen": callback.seen, "active": server.active_requests}


if __name__ == "__main__":
    server.run(port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1)
