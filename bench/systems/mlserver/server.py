"""w1 in MLServer: a custom handler, which takes the same JSON as every other system."""

import work
from mlserver import MLModel
from mlserver.handlers import custom_handler
from pydantic import BaseModel


class In(BaseModel):
    input: float


class Square(MLModel):
    @custom_handler(rest_path="/predict")
    async def square(self, payload: In) -> dict[str, float]:
        return {"output": work.square(payload.input)}
