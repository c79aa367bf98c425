"""Handles of endpoints outside of a worker: their errors, and functions in their place in tests."""

import asyncio
import pickle
from typing import Any
from unittest import mock

import litplex as ls
import pytest


class Ask(ls.LitAPI):
    ocr = ls.endpoint("/ocr")
    embed = ls.endpoint("embed", timeout=2)

    def __init__(self, **options):
        super().__init__(**options)
        self.own = ls.endpoint("/own")

    def predict(self, image):
        return {"text": self.ocr(image), "vectors": list(self.embed.map(["a", "b"]))}


@pytest.mark.parametrize("name", [3, None, "", " ", ["/a"], b"/ocr"])
def test_a_handle_is_of_a_path_or_a_name(name):
    with pytest.raises(ValueError, match=r"invalid endpoint .*: expected its path, such as `/ocr`"):
        ls.endpoint(name)
    with pytest.raises(ValueError, match="invalid endpoint"):
        Ask().call(name, 1)


@pytest.mark.parametrize("timeout", [0, -1, True, "2", float("nan"), float("inf")])
def test_a_timeout_is_positive(timeout):
    with pytest.raises(ValueError, match="expected a number of seconds above 0, or None"):
        ls.endpoint("/ocr", timeout=timeout)
    with pytest.raises(ValueError, match="expected a number of seconds above 0, or None"):
        Ask().call("/ocr", 1, timeout=timeout)


def test_a_call_outside_of_a_worker_says_how_to_test():
    sentence = (
        r"`self.ocr` calls the endpoint `/ocr` of a server, and this process is no worker of one; "
        r"in a test, replace it by a function: `self.ocr = lambda x: …`, with the model in place of"
    )
    api = Ask()
    for call in (api.ocr, api.ocr.later, api.ocr.stream, api.ocr.map, api.ocr.amap):
        with pytest.raises(RuntimeError, match=sentence):
            call([1])
    with pytest.raises(RuntimeError, match=sentence):
        asyncio.run(api.ocr.acall(1))
    with pytest.raises(RuntimeError, match="no worker of one"):
        api.call("/ocr", 1)


def test_a_function_takes_the_place_of_a_handle_on_an_instance():
    api: Any = Ask()
    other = Ask()
    api.ocr = str.upper
    api.embed = len
    assert api.predict("text") == {"text": "TEXT", "vectors": [1, 1]}
    assert other.ocr is Ask.ocr
    api.own = len
    assert api.own("abc") == 3
    del api.ocr
    assert api.ocr is Ask.ocr
    with pytest.raises(AttributeError, match="`ocr` is not replaced"):
        del api.ocr
    with pytest.raises(
        TypeError, match="can be replaced by another one or by a function, not by 3"
    ):
        api.ocr = 3
    api.ocr = ls.endpoint("/other")
    assert api.ocr.name == "/other"


def test_a_function_takes_the_place_of_a_handle_on_the_class(monkeypatch):
    for fake in (lambda x: x * 2, lambda x: x * 3):
        monkeypatch.setattr(Ask, "ocr", fake)
        assert Ask().ocr(2) == fake(2)
    monkeypatch.undo()
    assert Ask().ocr.name == "/ocr"
    with mock.patch.object(Ask, "ocr", mock.Mock(return_value="mocked")) as replaced:
        assert Ask().ocr(1) == "mocked"
        # The attributes of the function are those of the handle.
        getattr(Ask.ocr, "assert_called_once_with")(1)  # noqa: B009
        replaced.assert_called_once_with(1)


def test_a_handle_that_a_class_gets_later_knows_its_name():
    class Late(ls.LitAPI):
        pass

    setattr(Late, "ocr", ls.endpoint("/ocr"))  # noqa: B010
    api: Any = Late()
    with pytest.raises(RuntimeError, match=r"`self\.ocr` calls"):
        api.ocr(1)
    api.ocr = len
    assert api.ocr("ab") == 2


def test_a_function_has_all_forms_of_calls():
    api = Ask()

    def fake(x):
        if x == 0:
            raise ls.CallError(422, "zero", ["/ask", "/ocr"])
        return [x, x + 1]

    api.ocr = fake
    assert ls.gather(api.ocr.later(1), api.ocr.later(2)) == [[1, 2], [2, 3]]
    with pytest.raises(ls.CallError, match="zero"):
        ls.gather(api.ocr.later(1), api.ocr.later(0))
    found = ls.gather(api.ocr.later(0), api.ocr.later(1), return_exceptions=True)
    assert [found[0].status, found[1]] == [422, [1, 2]]
    assert list(api.ocr.stream(3)) == [3, 4]
    mapped = list(api.ocr.map([0, 1], return_exceptions=True))
    assert [mapped[0].detail, mapped[1]] == ["zero", [1, 2]]

    async def forms():
        streamed = [y async for y in api.ocr.astream(5)]
        mapped = [y async for y in api.ocr.amap([6])]
        return [await api.ocr.acall(4), streamed, mapped, await api.ocr.later(7)]

    assert asyncio.run(forms()) == [[4, 5], [5, 6], [[6, 7]], [7, 8]]

    async def fake_async(x):
        return [x]

    api.ocr = fake_async
    assert asyncio.run(forms()) == [[4], [5], [[6]], [7]]


def test_handles_are_pickled_with_their_model():
    handle = pickle.loads(pickle.dumps(ls.endpoint("/ocr", timeout=1.5)))
    assert (handle.name, handle.timeout, repr(handle)) == (
        "/ocr",
        1.5,
        "endpoint('/ocr', timeout=1.5)",
    )
    error = pickle.loads(pickle.dumps(ls.CallError(503, "full", ["/a", "/b"], "2")))
    assert (error.status, error.detail, error.calls, error.retry_after) == (
        503,
        "full",
        ["/a", "/b"],
        "2",
    )


def test_gather_takes_calls():
    async def forgotten():
        coroutine = Ask().ocr.acall(1)
        try:
            ls.gather(coroutine)  # type: ignore[arg-type]
        finally:
            coroutine.close()

    with pytest.raises(TypeError, match=r"not a coroutine \(of `acall`\)"):
        asyncio.run(forgotten())
    assert ls.gather() == []
