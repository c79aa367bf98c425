"""The echo of w9hop in BentoML: w9 without the call."""

from typing import Any

import bentoml


@bentoml.service(workers=1)
class Echo:
    @bentoml.api(route="/predict")
    async def predict(self, input: Any) -> Any:
        return {"output": input}
