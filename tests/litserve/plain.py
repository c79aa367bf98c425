"""A program with hooks of every result and error."""

import os
import sys
import tempfile

import litserve as ls
from fastapi import HTTPException, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.background import BackgroundTask


def saved(content):
    """Answers with a file that is removed afterwards."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(content)
    remove = BackgroundTask(os.remove, file.name)
    return FileResponse(
        file.name, 203, media_type="audio/wav", filename="a b.wav", background=remove
    )


class PlainAPI(ls.LitAPI):
    # Names that mean something to litplex alone are the program's own.
    max_concurrency = "four"

    def cost(self, hours, rate):
        return hours * rate

    def setup(self, device):
        self.device_seen = device

    def decode_request(self, request):
        if request == "decode":
            raise HTTPException(
                status_code=418, detail={"short": "stout"}, headers={"X-Pot": "tea"}
            )
        return request

    def predict(self, x, context):
        context["doubled"] = 2
        if x == "predict":
            raise ValueError("a secret")
        return x

    def encode_response(self, output, context):
        if output == "encode":
            raise HTTPException(status_code=409, detail="taken")
        made = {
            "response": lambda: Response(b"\x00\xff", 201, {"X-A": "1"}, "image/png"),
            "json": lambda: JSONResponse({"a": 1}, status_code=202),
            "text": lambda: Response("plain"),
            "file": lambda: saved(b"RIFF\xff"),
            "none": lambda: None,
            "float": lambda: 1.5,
            "list": lambda: [1, "a", None],
            "bytes": lambda: b"caf\xc3\xa9",
            "context": lambda: context["doubled"],
            "device": lambda: self.device_seen,
        }
        return made[output]() if isinstance(output, str) and output in made else {"output": output}


if __name__ == "__main__":
    server = ls.LitServer(PlainAPI(), accelerator="cpu", timeout=20, track_requests=True)
    server.run(port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1)
