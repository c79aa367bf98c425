"""w1 on granian's own interface: no routing, no validation, no framework."""

import json

import work

HEADERS = [("content-type", "application/json")]


async def app(scope, protocol):
    if scope.method == "GET":
        protocol.response_str(200, HEADERS, '"ok"')
        return
    request = json.loads(await protocol())
    output = {"output": work.square(request["input"])}
    protocol.response_str(200, HEADERS, json.dumps(output))
