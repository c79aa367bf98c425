"""w1 in BentoML: one service of one worker."""

import bentoml
import work


@bentoml.service(workers=1)
class Square:
    @bentoml.api(route="/predict")
    async def predict(self, input: float) -> dict[str, float]:
        return {"output": work.square(input)}
