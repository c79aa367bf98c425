"""A JSON value is read in the same way in a body, a field of a chat and arguments of a tool."""

import json

import pytest

pytest.importorskip("openai")

PROGRAM = """
    class Plain(ls.LitAPI):
        def predict(self, x):
            return repr(x["v"])

    class Chat(ls.LitAPI):
        def predict(self, request):
            yield repr(request.v)

    class Form(ls.LitAPI):
        def decode_request(self, request: ls.Form):
            return request["v"]

        def predict(self, text):
            return text

    schema = {"properties": {"v": {}, "w": {}}}
    ls.run_servers(
        ls.LitServer(Plain(mcp=ls.MCP("Shows.", schema, name="show")), path="/plain"),
        ls.LitServer(Chat(spec=ls.OpenAISpec())),
        ls.LitServer(Form(), path="/form"),
        port=0,
    )
"""

MANY = "7" * 400
DEEP = "[" * 300 + "]" * 300

#: How a value is written, and how Python shows it.
VALUES = [
    (MANY, MANY),
    (f"-{MANY}", f"-{MANY}"),
    ("12345678901234567890123", "12345678901234567890123"),
    ("-0", "0"),
    ("-0.0", "-0.0"),
    ("1E5", "100000.0"),
    ("1e+05", "100000.0"),
    ("1e-400", "0.0"),
    (f"0.{MANY}", repr(7 / 9)),
    (f"0.{'0' * 300}1e300", "0.1"),
    ("1.5777777777770001", "1.5777777777770001"),
    (f"{'1' + '0' * 300}.0", "1e+300"),
    ('{"a": 1, "b": 2, "a": 3}', "{'a': 3, 'b': 2}"),
    (" \t\n[ 1 ,\r\n2 ]", "[1, 2]"),
    ('"\\ud83d\\ude00 \\u0041\\/"', "'😀 A/'"),
    ('"\x7f\u2028"', repr("\x7f\u2028")),
    (DEEP, DEEP),
]

#: What is no JSON, or no number of Python's.
WRONG = [
    *("1e400", "-1E+400", f"{MANY}.5", f"{MANY}.0e-3x", f"{'1' * 250}e90", f"{'1' * 250}.0E+90"),
    *("NaN", "Infinity", "-Infinity", "nan", "inf", "+1", "01", "1.", ".5", "0x1", "1_0"),
    *('"\\ud800"', '{"\\udc00": 1}', '"\\ud800\\u0041"', '"\x01"', "'a'", "[1,]", '{"a": 1,}'),
    *("\u00a01", "\ufeff1", "/**/1", "True", "", "1" * 5000, "[" * 50_000 + "]" * 50_000),
]

#: What else is in the body: from a kilobyte of floats on, those are read in another way.
BESIDE = {"alone": "[]", "beside floats": json.dumps([0.5] * 400)}


def ask_plain(server, text, beside):
    body = f'{{"w": {beside}, "v": {text}}}'
    answer = server.client.post("/plain", content=body.encode())
    return answer.status_code, answer.json() if answer.is_success else answer.text


def ask_chat(server, text, beside):
    messages = '[{"role": "user", "content": "x"}]'
    body = f'{{"messages": {messages}, "w": {beside}, "v": {text}}}'
    answer = server.client.post("/v1/chat/completions", content=body.encode())
    if not answer.is_success:
        return answer.status_code, answer.text
    return 200, answer.json()["choices"][0]["message"]["content"]


def ask_tool(server, text, beside):
    call = f'{{"name": "show", "arguments": {{"w": {beside}, "v": {text}}}}}'
    body = f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {call}}}'
    headers = {"Content-Type": "application/json"}
    answer = server.client.post("/mcp", content=body.encode(), headers=headers).json()
    if "error" in answer:
        assert answer["error"]["code"] == -32700, answer
        return 400, answer["error"]["message"]
    [content] = answer["result"]["content"]
    if answer["result"].get("isError"):
        return 400, content["text"]
    return 200, json.loads(content["text"])


def test_a_value_is_the_same_wherever_it_comes(serve):
    server = serve(PROGRAM)
    for beside, floats in BESIDE.items():
        for ask in (ask_plain, ask_chat, ask_tool):
            for text, shown in VALUES:
                assert ask(server, text, floats) == (200, shown), (ask, text[:40], beside)
            for text in WRONG:
                status, said = ask(server, text, floats)
                assert status == 400, (ask, text[:40], beside, said)
                assert "JSON" in said or "json" in said, (ask, text[:40], said)
    # The field of a form is always a text.
    for text, _ in VALUES:
        parts = {"v": (None, text.encode(), "application/json")}
        assert server.client.post("/form", files=parts).json() == text, text[:40]
        if not text.startswith(" "):
            assert server.client.post("/form", data={"v": text}).json() == text, text[:40]
    assert not any("Traceback" in line for line in server.lines)
