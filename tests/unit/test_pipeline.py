"""The definitions of pipelines that the SDK writes, and how they are shown."""

import re
from typing import Any

import litplex as ls
import pytest

# Errors that a type checker finds, too.
UNTYPED: Any = ls

SEARCH = ls.Pipeline(
    ls.step("/ocr", name="ocr", input="$request.image", timeout=2.0),
    {"lang": "/lang", "vectors": ls.map("/embed", over="$ocr.chunks", in_flight=8)},
    ls.switch(
        {"lang.code == 'de'": "/de"},
        otherwise=["/a", ls.endpoint("/b", timeout=3.0)],
        dependency="soft",
        default=None,
    ),
    ls.splitter({"/x": 90, ls.step("/y", timeout=1): 10}, shadows={"/z": 0.1}),
    ls.sequence("/x", name="last"),
    ls.value({"answer": "$response", "of": ["$$", 1]}),
)


def test_a_definition_is_that_of_toml():
    assert SEARCH.steps == [
        {"call": "/ocr", "name": "ocr", "input": "$request.image", "timeout": 2.0},
        {
            "parallel": {
                "lang": {"call": "/lang"},
                "vectors": {"map": {"call": "/embed"}, "over": "$ocr.chunks", "in_flight": 8},
            }
        },
        {
            "switch": [
                {"call": "/de", "when": "lang.code == 'de'"},
                {"sequence": [{"call": "/a"}, {"call": "/b", "timeout": 3.0}]},
            ],
            "dependency": "soft",
            "default": None,
        },
        {
            "splitter": [
                {"call": "/x", "weight": 90},
                {"call": "/y", "timeout": 1, "weight": 10},
                {"call": "/z", "shadow": 0.1},
            ]
        },
        {"sequence": [{"call": "/x"}], "name": "last"},
        {"value": {"answer": "$response", "of": ["$$", 1]}},
    ]


def test_what_is_shown_makes_the_same_pipeline():
    shown = repr(SEARCH)
    assert "\n    step('/ocr', name='ocr', input='$request.image', timeout=2.0),\n" in shown
    names = ["Pipeline", "map", "parallel", "sequence", "splitter", "step", "switch", "value"]
    made = eval(shown, {name: getattr(ls, name) for name in names})
    assert made.steps == SEARCH.steps
    assert repr(ls.step("/a")) == "'/a'"
    assert repr(ls.Pipeline("/a", "/b")) == "Pipeline('/a', '/b')"


def test_a_step_has_one_definition_where_it_is_used_twice():
    step = ls.step("/a", name="a")
    ls.splitter({step: 1})
    assert step.definition == {"call": "/a", "name": "a"}


class Model(ls.LitAPI):
    def predict(self, x):
        return x


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: UNTYPED.Pipeline(3), "a step of a pipeline must be the path of an endpoint"),
        (
            lambda: UNTYPED.Pipeline(Model()),
            "not Model; a pipeline has no workers: serve the model at a",
        ),
        (lambda: UNTYPED.Pipeline([{"a": None}]), "a dict of steps, not NoneType"),
        (
            lambda: UNTYPED.LitServer(ls.Pipeline(ls.value({"a": b"x"})), path="/p"),
            "endpoint `/p`: `pipeline[0]['value']['a']` must be a value that JSON can hold",
        ),
        (
            lambda: UNTYPED.LitServer(ls.Pipeline(ls.value(float("nan"))), path="/p"),
            "`pipeline[0]['value']` must be a finite number",
        ),
        (
            lambda: UNTYPED.LitServer(ls.Pipeline("/a"), path="/p", workers=2),
            "there is no option `workers`",
        ),
    ],
)
def test_errors_are_told_where_they_are_made(make, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        make()


def test_a_misspelled_keyword_of_a_step_is_told():
    for make in (UNTYPED.step, UNTYPED.sequence, UNTYPED.map):
        with pytest.raises(TypeError, match="a step has no keyword `tiemout`; there are name, inp"):
            make("/a", tiemout=2)
