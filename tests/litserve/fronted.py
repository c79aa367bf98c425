"""A program with guards, middlewares and routes of its own in front of its endpoints."""

import sys

import litserve as ls
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from litserve.middlewares import MaxSizeMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware


class Guarded(ls.LitAPI):
    def predict(self, x):
        return {"output": x}

    def authorize(self, auth: HTTPAuthorizationCredentials = Depends(HTTPBearer())):
        if auth.credentials != "right":
            raise HTTPException(status_code=401, detail="Bad token", headers={"X-Why": "token"})


class Awaited(ls.LitAPI):
    def predict(self, x):
        return {"output": x}

    async def authorize(self, response: Response, x_token: int = Header()):
        response.headers["X-A"] = "dependency"
        if x_token != 1:
            raise HTTPException(status_code=403, detail="Bad token")


class Streamed(ls.LitAPI):
    def predict(self, n):
        yield from range(n)

    def encode_response(self, outputs):
        for output in outputs:
            yield {"output": output}


class Passed(BaseHTTPMiddleware):
    def __init__(self, app, name="plain"):
        super().__init__(app)
        self.name = name

    async def dispatch(self, request: Request, call_next):
        if request.headers.get("x-stop") == self.name:
            return Response("stopped", 418)
        if "x-body" in request.headers:
            request._body = request.headers["x-body"].encode()
        response = await call_next(request)
        response.headers.append("X-Passed", self.name)
        return response


apis = [
    Guarded(api_path="/guarded"),
    Awaited(api_path="/awaited"),
    Streamed(api_path="/streamed", stream=True),
]
server = ls.LitServer(
    apis,
    accelerator="cpu",
    middlewares=[
        (MaxSizeMiddleware, {"max_size": 1000}),
        Passed,
        (Passed, {"name": "given"}),
        (CORSMiddleware, {"allow_origins": ["https://a.example"], "allow_methods": ["*"]}),
    ],
)


@server.app.middleware("http")
async def mark(request: Request, call_next):
    response = await call_next(request)
    response.headers["X-Marked"] = request.url.path
    return response


@server.app.get("/custom/{name}")
def custom(name: str, q: int = 0):
    return {"name": name, "q": q}


@server.app.get("/predictions")
async def predictions(request: Request):
    return {"agent": request.headers["user-agent"][:5], "host": request.client.host}


@server.app.get("/members", dependencies=[Depends(server.setup_auth(server.lit_api[0]))])
def members():
    return "in"


other = FastAPI()


@other.post("/there")
async def there(request: Request):
    return await request.json()


server.app.mount("/sub", other)

if __name__ == "__main__":
    server.run(port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1)
