"""Types that handles declare: they are checked at the start, and values are converted to them."""

import sys

import pytest
from conftest import Server

pytest.importorskip("pydantic")

SERVER = """
    import datetime
    from typing import List
    from pydantic import BaseModel

    class Picture(BaseModel):
        name: str
        taken: datetime.date

    class Line(BaseModel):
        text: str
        score: float = 1.0

    class Page(BaseModel):
        lines: List[Line]

    class Named(BaseModel):
        name: str

    class Ocr(ls.LitAPI):
        def decode_request(self, request: Picture):
            return request

        def predict(self, picture):
            return {"lines": [{"text": f"{picture.name} of {picture.taken:%Y}"}] * 2}

        def encode_response(self, output) -> Page:
            return output

    class Lines(ls.LitAPI):
        def predict(self, count):
            for score in range(count):
                yield {"text": "line", "score": score}

    class Ask(ls.LitAPI):
        ocr = ls.endpoint("/ocr", takes=TAKES, returns=RETURNS)
        lines = ls.endpoint("/lines", takes=int, returns=Line)
        wrong = ls.endpoint("/lines", returns=Named)

        def predict(self, code):
            scope = {}
            exec("def hook(self):\\n    " + code, globals(), scope)
            return scope["hook"](self)

    class AskAsync(ls.LitAPI):
        ocr = ls.endpoint("/ocr", takes=Picture, returns=Page)
        lines = ls.endpoint("/lines", returns=Line)

        async def predict(self, name):
            page = await self.ocr.acall(Picture(name=name, taken="2026-01-01"))
            scores = [line.score async for line in self.lines.astream(2)]
            return [page.lines[0].text, *scores]

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Ask(), path="/ask"),
            ls.LitServer(AskAsync(), path="/ask/async"),
            ls.LitServer(Ocr(), path="/ocr"),
            ls.LitServer(Lines(stream=True), path="/lines"),
            port=0,
        )
"""


def program(takes, returns):
    return SERVER.replace("TAKES", takes).replace("RETURNS", returns)


def test_values_are_converted_to_the_declared_types(serve):
    server = serve(program("Picture", "Page"))

    def ask(code):
        return server.post("/ask", json=code)

    picture = "Picture(name='p', taken='2026-02-03')"
    for code, expected in [
        (f"return self.ocr({picture}).lines[1].text", "p of 2026"),
        # Values of JSON that fit the type are taken, too.
        ("return self.ocr({'name': 'q', 'taken': '2025-02-03'}).lines[0].score", 1.0),
        (f"return self.ocr.later({picture}).result().lines[0].text", "p of 2026"),
        (
            f"return [page.lines[0].text for page in self.ocr.map([{picture}] * 2)]",
            ["p of 2026"] * 2,
        ),
        ("return [line.score for line in self.lines.stream(3)]", [0, 1, 2]),
        ("return [line.score for line in self.lines(2)]", [0, 1]),
    ]:
        response = ask(code)
        assert (response.status_code, response.json()) == (200, expected), code
    assert server.post("/ask/async", json="p").json() == ["p of 2026", 0, 1]
    # A wrong input is an error of the hook, a wrong result one of the callee.
    response = ask(
        "try: self.ocr({'name': 'p'})\n    except ValueError as error: return str(error)"
    )
    assert response.json().startswith(
        "the input of `self.ocr` is not `Picture`: `taken`: Field req"
    )
    for code in ("return self.wrong(1)", "return list(self.wrong.stream(1))"):
        response = ask(f"try: {code}\n    except ls.CallError as error: return str(error)")
        assert "502" in response.json(), response.text
        assert "its result is not `Named`: `name`: Field required" in response.json()


def test_types_that_cannot_fit_are_refused_at_the_start(litplex, script, run):
    for takes, returns, sentence in [
        (
            "Named",
            "Page",
            "`takes` of `self.ocr` does not fit what `/ocr` takes: the object has no field `taken`",
        ),
        (
            "list",
            "Page",
            "`takes` of `self.ocr` does not fit what `/ocr` takes: the value is an array, not an",
        ),
        (
            "Picture",
            "Line",
            "`returns` of `self.ocr` does not fit what `/ocr` returns: the object has no field `te",
        ),
    ]:
        path = script(program(takes, returns))
        status, _, errors = litplex("check", path)
        assert (status, f"endpoint `/ask`: {sentence}" in errors) == (2, True), errors
    ended = run([sys.executable, path], kind=Server)
    ended.wait_for_line(f"endpoint `/ask`: {sentence}")
    assert ended.wait() != 0
    assert litplex("check", script(program("Picture", "Page")))[0] == 0
    # A type that pydantic does not know is named.
    status, _, errors = litplex("check", script(program("Picture", "Ocr")))
    assert status == 2
    assert "`returns=" in errors and "of `ls.endpoint` is no type that pydantic knows" in errors
