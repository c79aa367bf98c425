"""The callers of w9 and w9async, whose callee is the model in Rust."""

import litplex as ls


class Relay(ls.LitAPI):
    echo = ls.endpoint("/echo")

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        return self.echo({"input": x})["output"]

    def encode_response(self, output):
        return {"output": output}


class AsyncRelay(Relay):
    async def predict(self, x):
        return (await self.echo.acall({"input": x}))["output"]
