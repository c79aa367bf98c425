"""Requests and answers that pydantic describes, forms and files."""

import sys
from typing import Optional

import litserve as ls
from fastapi import Request, UploadFile
from pydantic import BaseModel, Field


class Item(BaseModel):
    name: str
    size: int = Field(gt=0)
    note: Optional[str] = None


class Answer(BaseModel):
    name: str
    doubled: int


class Modelled(ls.LitAPI):
    def decode_request(self, request: Item) -> Item:
        return request

    def predict(self, item):
        return Answer(name=item.name, doubled=2 * item.size)

    def encode_response(self, output) -> Answer:
        return output


class Files(ls.LitAPI):
    def decode_request(self, request: UploadFile):
        return request.filename, request.file.read()

    def predict(self, x):
        return x

    def encode_response(self, output):
        name, content = output
        return {"name": name, "length": len(content)}


class AwaitedFiles(ls.LitAPI):
    async def decode_request(self, request: UploadFile):
        first = await request.read(2)
        await request.seek(0)
        content = await request.read()
        await request.close()
        return {"first": first.decode(), "length": len(content)}

    async def predict(self, x):
        return x


class Anything(ls.LitAPI):
    def decode_request(self, request: Request):
        return dict(request)

    def predict(self, x):
        return x

    def encode_response(self, output):
        return {name: value if isinstance(value, str) else "?" for name, value in output.items()}


if __name__ == "__main__":
    apis = [
        Modelled(api_path="/modelled"),
        Files(api_path="/files"),
        AwaitedFiles(api_path="/awaited_files", enable_async=True),
        Anything(api_path="/anything"),
    ]
    server = ls.LitServer(apis, accelerator="cpu")
    server.run(port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1)
