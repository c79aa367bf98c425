"""The official client of the Model Context Protocol calls endpoints as tools."""

import asyncio
import json

import pytest

httpx2 = pytest.importorskip("httpx2")
mcp = pytest.importorskip("mcp")
streamable_http = pytest.importorskip("mcp.client.streamable_http")

TOOLS = """
    import time
    from pydantic import BaseModel

    class Power(BaseModel):
        base: float
        exponent: int = 2

    class Typed(ls.LitAPI):
        def decode_request(self, request: Power):
            return request.base ** request.exponent

        def predict(self, x):
            return {"output": x}

    class Untyped(ls.LitAPI):
        '''Says what it got.'''
        def predict(self, x):
            if x == "fail":
                raise ls.HTTPException(409, "taken")
            return x

    class Given(ls.LitAPI):
        def predict(self, x):
            return sorted(x)

    class Streams(ls.LitAPI):
        def predict(self, x):
            yield from x

    class Slow(ls.LitAPI):
        '''Sleeps.'''
        def predict(self, x):
            time.sleep(5)

    schema = {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    ls.run_servers(
        ls.LitServer([
            Typed(mcp=ls.MCP(description="Raises to a power."), api_path="/power"),
            Untyped(mcp=ls.MCP(), api_path="/v1/echo"),
            Given(mcp=ls.MCP("Sorts.", schema, name="sort"), api_path="/sort"),
            Streams(mcp=ls.MCP("Counts."), stream=True, api_path="/count"),
            Untyped(api_path="/hidden"),
        ]),
        ls.LitServer(Slow(mcp=ls.MCP(), api_path="/slow"), timeout=0.5),
        port=0,
    )
"""


def with_client(server, use, headers=None):
    """Returns what ``use`` makes of a client."""

    async def run():
        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
            transport = streamable_http.streamable_http_client(
                server.url + "/mcp", http_client=http
            )
            async with mcp.Client(transport) as client:
                return await use(client)

    return asyncio.run(run())


def call(server, name, **arguments):
    return with_client(server, lambda client: client.call_tool(name, arguments))


def text_of(result):
    return "".join(block.text for block in result.content)


def test_tools_are_listed(serve):
    server = serve(TOOLS)
    tools = with_client(server, lambda client: client.list_tools()).tools
    described = {tool.name: tool.description for tool in tools}
    assert described == {
        "power": "Raises to a power.",
        "v1_echo": "Says what it got.",
        "sort": "Sorts.",
        "count": "Counts.",
        "slow": "Sleeps.",
    }
    schemas = {tool.name: tool.input_schema for tool in tools}
    power = schemas["power"]
    assert power["properties"] == {"request": {"$ref": "#/$defs/Power"}}
    assert power["$defs"]["Power"]["required"] == ["base"]
    assert schemas["sort"]["properties"]["a"] == {"type": "integer"}


def test_tools_are_called(serve):
    server = serve(TOOLS)
    result = call(server, "power", request={"base": 3})
    assert json.loads(text_of(result)) == {"output": 9.0}
    assert "serve_inner" not in server.output, "a line for every call says nothing"
    assert result.structured_content == {"output": 9.0}
    assert json.loads(text_of(call(server, "v1_echo", request=["a"]))) == ["a"]
    assert json.loads(text_of(call(server, "sort", b=1, a=2))) == ["a", "b"]
    assert text_of(call(server, "count", request=[1, 2])) == "1\n2\n"


def test_what_goes_wrong_is_told(serve):
    server = serve(TOOLS)
    refused = call(server, "power", request={"base": "x"})
    assert refused.is_error and "float_parsing" in text_of(refused)
    failed = call(server, "v1_echo", request="fail")
    assert failed.is_error and "taken" in text_of(failed)
    late = call(server, "slow", request=1)
    assert late.is_error and "timed out" in text_of(late)

    async def call_another(client):
        with pytest.raises(Exception, match="there is no tool `other`"):
            await client.call_tool("other", {})

    with_client(server, call_another)


def test_the_key_guards_tools_too(serve):
    server = serve(TOOLS, env={"LIT_SERVER_API_KEY": "s3cret"})
    key = {"X-API-Key": "s3cret"}
    tools = with_client(server, lambda client: client.list_tools(), key).tools
    assert len(tools) == 5
    assert server.post("/mcp", json={}).status_code == 401


def test_without_a_tool_there_is_no_such_route(serve):
    server = serve("""
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        ls.LitServer(Echo()).run(port=0)
    """)
    assert server.post("/mcp", json={}).status_code == 404
