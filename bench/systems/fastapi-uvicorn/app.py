"""Plain FastAPI, the model inline in the event loop, no batching.

/slow is a `def` route (thread pool) behind a lock.
"""

import os
import threading

import work
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

W = os.environ["BENCH_W"]
SLEEP = work.CONF[W].sleep_s
app = FastAPI()


class In(BaseModel):
    input: float


class Img(BaseModel):
    image: str


class Text(BaseModel):
    text: str


if W == "w1":

    @app.post("/predict")
    async def predict(i: In):
        return {"output": work.square(i.input)}
elif W in ("w2", "w7", "w7b"):

    @app.post("/predict")
    async def predict(i: In):
        return {"output": work.square_batch([i.input], SLEEP)[0]}
elif W == "w3":

    @app.post("/predict")
    async def predict(i: In):
        async def g():
            for k in range(int(i.input)):
                yield f'{{"output": {k}}}\n'

        return StreamingResponse(g())
elif W == "w4":
    lock = threading.Lock()

    @app.post("/fast")
    async def fast(i: In):
        return {"output": work.square(i.input)}

    @app.post("/slow")
    def slow(i: In):
        with lock:
            return {"output": work.square_batch([i.input], SLEEP)[0]}
elif W == "w5":

    @app.post("/predict")
    async def predict(i: Img):
        return {"output": work.image(i.image)}
elif W == "w5raw":

    @app.post("/predict")
    async def predict(request: Request):
        return {"output": work.crc(await request.body())}
elif W == "w6":
    m = work.Embedder()

    @app.post("/predict")
    async def predict(i: Text):
        return {"embedding": m([i.text])[0].tolist()}
elif W == "w8":

    @app.post("/predict")
    async def predict(i: In):
        return {"output": work.square_or_die(i.input)}
