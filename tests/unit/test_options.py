"""Options are checked with the same result in Python and in Rust."""

import json
import re
from pathlib import Path
from typing import Any

import litplex as ls
import pytest
from litplex import _options, _where
from litplex._server import program_of

CASES = json.loads(
    (Path(__file__).parents[2] / "crates/config/tests/cases.json").read_text("utf-8")
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case["options"]))
def test_errors_have_the_messages_of_the_cases(case):
    assert _options.errors(case["scope"], case["options"]) == case["errors"]


class API(ls.LitAPI):
    def predict(self, x):
        return x


def test_a_server_reports_all_errors_at_once():
    with pytest.raises(ValueError) as raised:
        ls.LitServer(API(), path="ocr", timeout=-2, workers_per_device=0, wrokers=2)  # type: ignore[call-arg]
    text = str(raised.value)
    assert text.startswith("4 errors:")
    for part in ("endpoint `ocr`", "`path`", "`timeout`", "`workers_per_device`", "`wrokers`"):
        assert part in text


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("workers_per_device", "`workers_per_device` is an argument of `LitServer(…)`"),
        ("workers", "`workers_per_device` is an argument of `LitServer(…)`"),
        ("port", "`port` is an argument of `run_servers(…)`"),
        ("qqqqqq", "options are arguments of `LitServer(…)` and `run_servers(…)`"),
    ],
)
def test_an_unknown_argument_of_an_api_gets_a_hint(argument, says):
    class Takes(API):
        def __init__(self, size):
            super().__init__()

    kinds: list[Any] = [API, lambda **options: Takes(1, **options)]
    for kind in kinds:
        with pytest.raises(TypeError) as raised:
            kind(**{argument: 2})
        assert str(raised.value).endswith(f"unexpected keyword argument '{argument}'; {says}")


def test_a_wrong_argument_of_another_function_gets_no_hint():
    class Calls(API):
        def __init__(self, size):
            super().__init__()
            other: Any = lambda: None  # noqa: E731
            other(port=size)

    with pytest.raises(TypeError, match=r"argument 'port'$"):
        Calls(size=1)


def test_an_api_reports_all_errors_at_once():
    with pytest.raises(ValueError, match=r"2 errors:(?s:.)*API: max_batch_size"):
        API(max_batch_size=0, api_path="predict")


@pytest.mark.parametrize(
    ("servers", "says"),
    [
        (lambda: [ls.LitServer(API(), path="/a"), ls.LitServer(API(), path="/a")], "2 endpoints"),
        (lambda: [ls.LitServer(API(), path="/health")], "in use by litplex healthcheck"),
        (lambda: [], "at least one"),
        (lambda: [API()], r"LitServer instances, not a LitAPI; write `LitServer\(API\(\)\)`"),
        (lambda: [[ls.LitServer(API())]], r"not a list; pass its items: `\*servers`"),
        (lambda: [(ls.LitServer(API()),)], r"not a tuple; pass its items: `\*servers`"),
        (lambda: [ls.LitServer([API(), API()])], "2 endpoints have this path"),
    ],
)
def test_servers_in_conflict_are_refused_before_any_start(servers, says):
    with pytest.raises(ValueError, match=says):
        ls.run_servers(*servers())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ls.LitServer(API), r"write `API\(\)`"),  # type: ignore[arg-type]
        (lambda: ls.LitServer([]), "empty list"),
        (lambda: ls.LitServer([API(), API()], path="/a"), "each LitAPI its own `api_path`"),
        (lambda: ls.LitServer("ocr.py"), "named like"),
        (lambda: ls.LitServer(API(), python="no/such/python"), "create the environment"),
    ],
)
def test_a_value_that_is_not_an_api_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_server_option_that_is_wrong_is_refused():
    with pytest.raises(ValueError, match=r"run_servers: `port` must be .*, not 99999"):
        ls.run_servers(ls.LitServer(API()), port=99999)


@pytest.mark.parametrize(("chosen", "said"), [(None, {}), (8, {"max_concurrency": 8})])
def test_options_that_an_api_does_not_set_are_left_out(chosen, said):
    api = API()
    api.max_concurrency = chosen
    program = program_of([ls.LitServer(api, path="/a")], {})
    (endpoint,) = program["endpoint"]
    assert {name: endpoint[name] for name in endpoint if name == "max_concurrency"} == said
    assert endpoint["max_batch_size"] == 1


@pytest.mark.parametrize("python", [".venv", ".venv/", "./.venv"])
def test_an_environment_is_not_its_interpreter(python, tmp_path, monkeypatch):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(_where, "directory_of_caller", lambda: str(tmp_path))
    meant = f"did you mean `{python.rstrip('/')}/bin/python`"
    with pytest.raises(ValueError, match=re.escape(meant)):
        ls.LitServer(API(), python=python)
    with pytest.raises(ValueError, match="/models`, not an interpreter"):
        ls.LitServer(API(), python="models")
    ls.LitServer(API(), python=f"{python}/bin/python")
