"""The two-hop echo of w9 in BentoML: a service that depends on another, one worker each."""

from typing import Any

import bentoml


# At its default of 100 requests, the connections to this service are closed while they are used.
@bentoml.service(workers=1, runner_connection={"max_requests": 10**9})
class Echo:
    @bentoml.api(route="/echo")
    async def echo(self, input: Any) -> Any:
        return {"output": input}


@bentoml.service(workers=1)
class Relay:
    inner = bentoml.depends(Echo)

    @bentoml.api(route="/predict")
    async def predict(self, input: Any) -> Any:
        return await self.inner.to_async.echo(input=input)
