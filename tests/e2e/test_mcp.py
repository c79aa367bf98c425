"""The official client of the Model Context Protocol calls endpoints as tools."""

import asyncio
import base64
import gzip
import json

import httpx
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
            media_types = {"image": "image/png", "audio": "audio/wav", "file": "font/ttf"}
            if isinstance(x, str) and x in media_types:
                return ls.Response(b"\\x89\\xff", media_type=media_types[x])
            return x

    class Given(ls.LitAPI):
        def predict(self, x):
            return sorted(x)

    class Streams(ls.LitAPI):
        def predict(self, x):
            for item in x:
                if item == "break":
                    raise ls.HTTPException(409, "no more of it")
                yield item

    class Chat(ls.LitAPI):
        '''Chats.'''
        def predict(self, request):
            yield request.messages[-1].content

    class Tree(BaseModel):
        leaf: int = 0
        children: list["Tree"] = []

    class Typed2(ls.LitAPI):
        '''Counts.'''
        def decode_request(self, tree: Tree):
            return len(tree.children)
        def predict(self, x):
            return x

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
        ls.LitServer(Untyped(mcp=ls.MCP(name="rated")), path="/rated", rate_limit="2/h"),
        ls.LitServer(Untyped(mcp=ls.MCP(name="small")), path="/small", max_body_bytes=100),
        ls.LitServer(Chat(mcp=ls.MCP(name="chat"), spec=ls.OpenAISpec())),
        ls.LitServer(Typed2(mcp=ls.MCP(name="tree")), path="/tree"),
        port=0,
    )
"""


def with_client(server, use, headers=None):
    """Returns the result of ``use`` with a client."""

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
        "rated": "Says what it got.",
        "small": "Says what it got.",
        "chat": "Chats.",
        "tree": "Counts.",
    }
    schemas = {tool.name: tool.input_schema for tool in tools}
    power = schemas["power"]
    assert "$defs" not in power
    assert power["properties"]["request"]["required"] == ["base"]
    assert power["properties"]["request"]["properties"]["exponent"]["default"] == 2
    assert schemas["sort"]["properties"]["a"] == {"type": "integer"}
    assert schemas["chat"]["properties"]["request"]["required"] == ["messages"]
    tree = schemas["tree"]
    assert tree["properties"]["tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert list(tree["$defs"]) == ["Tree"]


def test_tools_are_called(serve):
    server = serve(TOOLS)
    result = call(server, "power", request={"base": 3})
    assert json.loads(text_of(result)) == {"output": 9.0}
    assert "serve_inner" not in server.output, "a line for every call says nothing"
    assert result.structured_content == {"output": 9.0}
    assert json.loads(text_of(call(server, "v1_echo", request=["a"]))) == ["a"]
    assert json.loads(text_of(call(server, "sort", b=1, a=2))) == ["a", "b"]
    assert text_of(call(server, "count", request=[1, 2])) == "1\n2\n"
    # What is no text stays as it is.
    data = base64.b64encode(b"\x89\xff").decode()
    for name, media_type in [("image", "image/png"), ("audio", "audio/wav")]:
        (block,) = call(server, "v1_echo", request=name).content
        assert (block.type, block.data, block.mime_type) == (name, data, media_type)
    (block,) = call(server, "v1_echo", request="file").content
    assert (block.resource.blob, block.resource.mime_type) == (data, "font/ttf")
    assert block.resource.uri == "litplex:/v1/echo"


def test_errors_of_tools_are_reported(serve):
    server = serve(TOOLS)
    refused = call(server, "power", request={"base": "x"})
    assert refused.is_error and "float_parsing" in text_of(refused)
    assert text_of(refused).startswith("invalid argument `request.base`: ")
    missing = call(server, "power")
    assert missing.is_error and text_of(missing) == "missing argument `request`; expected `request`"
    unknown = call(server, "power", request={"base": 1}, other=1)
    assert unknown.is_error and "unknown argument `other`" in text_of(unknown)
    assert json.loads(text_of(call(server, "power", request='{"base": 3}'))) == {"output": 9.0}
    failed = call(server, "v1_echo", request="fail")
    assert failed.is_error and "taken" in text_of(failed)
    broken = call(server, "count", request=[1, "break"])
    assert broken.is_error and text_of(broken).startswith("the stream broke off: 1\n")
    assert "no more of it" in text_of(broken)
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
    assert len(tools) == 9
    assert server.post("/mcp", json={}).status_code == 401


def test_a_client_is_shown_the_tools_that_it_may_call(serve):
    program = """
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        own = {"api_keys": {"ann": "env:ANN"}}
        ls.run_servers(
            ls.LitServer(Echo(mcp=ls.MCP("Echoes.", name="open")), path="/open"),
            ls.LitServer(Echo(mcp=ls.MCP("Echoes.", name="guarded_echo")), path="/a", **own),
            port=0,
        )
    """
    server = serve(program, env={"ANN": "key of ann"})
    for headers, expected in [
        ({}, ["open"]),
        ({"X-API-Key": "wrong"}, ["open"]),
        ({"X-API-Key": "key of ann"}, ["guarded_echo", "open"]),
    ]:
        listed = rpc(server, "tools/list", **headers).json()["result"]["tools"]
        assert [tool["name"] for tool in listed] == expected, headers
        called = tool(server, "guarded_echo", {"request": 1}, **headers)
        assert bool(called.get("isError")) == ("guarded_echo" not in expected), headers


def test_without_a_tool_the_route_does_not_exist(serve):
    server = serve("""
        class Echo(ls.LitAPI):
            def predict(self, x):
                return x

        ls.LitServer(Echo()).run(port=0)
    """)
    assert server.post("/mcp", json={}).status_code == 404


def rpc(server, method, params=None, source="127.0.0.1", **headers):
    """Returns the answer to a message, of a client that says no more than it must."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    transport = httpx.HTTPTransport(local_address=source)
    with httpx.Client(base_url=server.url, transport=transport, timeout=30) as client:
        client.headers.pop("Accept")
        content = json.dumps(message) if isinstance(method, str) else method
        return client.post("/mcp", content=content, headers=headers)


def tool(server, name, arguments, **options):
    answer = rpc(server, "tools/call", {"name": name, "arguments": arguments}, **options)
    return answer.json()["result"]


DEEP = b'{"a":' * 1000 + b"1" + b"}" * 1000


def test_clients_of_all_kinds_are_answered(serve):
    server = serve(TOOLS)
    for accept in [None, "*/*", "application/json", "application/json, text/event-stream"]:
        answer = rpc(server, "tools/list", **({"Accept": accept} if accept else {}))
        assert answer.headers["content-type"] == "application/json", accept
        assert len(answer.json()["result"]["tools"]) == 9
    events = rpc(server, "tools/list", Accept="text/event-stream")
    assert events.headers["content-type"] == "text/event-stream"
    for encoding in ("utf-8-sig", "utf-16", "utf-32-be"):
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert "result" in rpc(server, json.dumps(listing).encode(encoding)).json(), encoding
    # Errors have the codes of JSON-RPC.
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}
    for message, status, code, id in [
        (b"{", 400, -32700, None),
        (b"{NaN}", 400, -32700, None),
        (b"[]", 400, -32600, None),
        (b'{"id": 1, "method": "tools/list"}', 400, -32600, None),
        (json.dumps(call).encode(), 200, -32602, 7),
        (json.dumps({**call, "params": {"name": 1}}).encode(), 200, -32602, 7),
        (
            json.dumps({**call, "params": {"name": "sort", "arguments": []}}).encode(),
            200,
            -32602,
            7,
        ),
        (json.dumps({**call, "params": {"name": "other"}}).encode(), 200, -32602, 7),
        (json.dumps({**call, "method": "initialize"}).encode(), 200, -32602, 7),
        (json.dumps({**call, "method": "no/such"}).encode(), 200, -32601, 7),
        (json.dumps({**call, "params": {"name": "sort", "_meta": [1]}}).encode(), 200, -32602, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"x","params":%b}' % DEEP, 200, -32602, 7),
    ]:
        answer = rpc(server, message)
        said = answer.json()
        assert (said["error"]["code"], said["id"]) == (code, id), message
        assert answer.status_code == status or code == -32601, message
    # What is passed on is not written anew.
    exact = '{"b":12345678901234567890123,"a":1.5777777777770001}'
    text = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"v1_echo","arguments":'
    text += f'{{"request":{exact}}}}}}}'
    answer = rpc(server, text.encode()).json()["result"]
    assert answer["content"][0]["text"] == exact
    # Ids of clients do not forge lines of the log.
    forged = {"jsonrpc": "2.0", "id": "1\n2026-11-28 ERROR forged \x1b[31m", "method": "x"}
    rpc(server, json.dumps(forged).encode())
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    said = json.loads(tool(server, "chat", {"request": chat})["content"][0]["text"])
    assert said["choices"][0]["message"]["content"] == "hi"
    wrong = tool(server, "chat", {"request": {"messages": [{"content": "hi"}]}})
    assert wrong["isError"] and "messages[0].role" in wrong["content"][0]["text"]
    assert "forged" not in server.output


def test_a_call_is_limited_as_any_request(serve):
    server = serve(TOOLS)
    first, other = "127.0.0.1", "127.0.0.2"
    for source, is_error in [(first, False), (first, False), (first, True), (other, False)]:
        result = tool(server, "rated", {"request": 1}, source=source)
        assert bool(result.get("isError")) == is_error, source
    assert not tool(server, "small", {"request": "a" * 90}).get("isError")
    large = tool(server, "small", {"request": "a" * 100})
    assert large["isError"] and "larger than 100 bytes" in large["content"][0]["text"]


def test_messages_may_be_compressed(serve):
    server = serve(TOOLS)
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "v1_echo", "arguments": {"request": "a" * 5000}},
    }

    def send(body, coding):
        headers = {"Content-Type": "application/json", "Content-Encoding": coding}
        return server.post("/mcp", content=body, headers=headers)

    packed = gzip.compress(json.dumps(message).encode())
    assert send(packed, "gzip").json()["result"]["content"][0]["text"] == json.dumps("a" * 5000)
    assert send(packed[:50], "gzip").status_code == 400
    refused = send(packed, "compress")
    assert refused.status_code == 415
    assert "gzip" in refused.headers["accept-encoding"]
    bomb = gzip.compress(b" " * 80_000_000, 1)
    assert send(bomb, "gzip").status_code == 413


def test_large_messages_are_read_in_time_or_refused(serve):
    """The time of a call grows with its length, not with the square of its number of fields."""
    server = serve(TOOLS)
    fields = {f"a{number}": number for number in range(99_000)}
    assert json.loads(tool(server, "v1_echo", {"request": fields})["content"][0]["text"]) == fields
    assert "missing argument" in tool(server, "v1_echo", fields)["content"][0]["text"]
    for message in (
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": fields}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", **fields},
    ):
        refused = server.post("/mcp", json=message)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == -32600
