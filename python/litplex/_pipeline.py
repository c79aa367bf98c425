"""Pipelines: endpoints whose model is a graph of calls, which the server runs without a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Union

from litplex import _options
from litplex._calls.endpoint import Endpoint

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: A step, the endpoint that it calls, steps one after the other, or steps at the same time by name.
StepLike = Union["Step", Endpoint, str, Sequence["StepLike"], Mapping[str, "StepLike"]]

#: JSON in which texts that begin with ``$`` are paths.
Template = Any


class StepOptions(TypedDict, total=False):
    """Keywords of all steps.

    Attributes:
        name: The name by which later steps and conditions select from its response, and which
            metrics, spans and errors show.
        input: What it gets: a path, or JSON with paths. Default: ``"$response"``.
        timeout: The seconds that it may take, to its response or to the first items of a stream.
            Default: what is left of the time of the request.
        dependency: ``"hard"``: if it fails, the pipeline fails. ``"soft"``: the pipeline goes on
            with ``default``. Default: ``"hard"``.
        default: The value in place of the response of a soft step that failed. Default: None.
    """

    name: str | None
    input: Template
    timeout: float | None
    dependency: Literal["hard", "soft"]
    default: Any


class Step:
    """A step of a pipeline, made by :func:`step`, :func:`parallel`, …

    Attributes:
        definition: The step as JSON, as in ``litplex.toml``.
    """

    def __init__(self, definition: dict[str, Any]) -> None:
        self.definition = definition

    def __repr__(self) -> str:
        return _shown(self.definition)


class Pipeline:
    """An endpoint that calls others: its steps run one after the other, in the server.

    ::

        search = ls.Pipeline(
            ls.step("/ocr", name="ocr", input="$request.image"),
            ls.parallel({"lang": "/lang", "entities": ls.step("/ner", dependency="soft")}),
            ls.switch({"lang.code == 'de'": "/answer-de"}, otherwise="/answer-en"),
        )
        ls.run_servers(..., ls.LitServer(search, path="/search"))

    A step gets the response of the one before it, the first one the request. ``input`` selects
    something else: ``$request``, ``$response``, or ``$`` and the name of an earlier step, followed
    by keys and indices (``$ocr.pages[0].text``); or JSON with such paths in it. The response of the
    last step is that of the pipeline; if it is a stream, its items are passed on as they come. The
    server checks the whole pipeline when it starts, and names the place of every error.

    Args:
        *steps: Steps. A text is the path or the name of an endpoint that the step calls, a list is
            steps one after the other, a dict is steps at the same time, by name.

    Raises:
        ValueError: an argument is no step.
    """

    def __init__(self, *steps: StepLike) -> None:
        self.steps: list[dict[str, Any]] = _all_of(steps)

    def __repr__(self) -> str:
        return f"Pipeline({_lines([_shown(step) for step in self.steps])})"


def step(
    endpoint: str,
    **options: Unpack[StepOptions],
) -> Step:
    """Returns a step that calls an endpoint.

    Args:
        endpoint: The path or the name of the endpoint.
        **options: See :class:`StepOptions`.
    """
    return _step("call", endpoint, options)


def sequence(
    *steps: StepLike,
    **options: Unpack[StepOptions],
) -> Step:
    """Returns a step that runs steps one after the other. :class:`StepOptions` has the keywords."""
    return _step("sequence", _all_of(steps), options)


def parallel(
    branches: Mapping[str, StepLike],
    **options: Unpack[StepOptions],
) -> Step:
    """Returns a step that runs steps at the same time; its response is an object with theirs by
    name.

    If one of them fails, the others are cancelled, unless it is soft. Later steps may select from
    each by its name, too. :class:`StepOptions` has the other keywords.
    """
    return _step("parallel", _by_name(branches), options)


def switch(
    branches: Mapping[str, StepLike],
    otherwise: StepLike | None = None,
    **options: Unpack[StepOptions],
) -> Step:
    """Returns a step that runs the first of its branches whose condition holds.

    Args:
        branches: Steps by condition, in the Common Expression Language (CEL). ``request``,
            ``response`` and the names of earlier steps are its variables:
            ``"lang.code == 'de' && size(response.words) > 3"``.
        otherwise: The step for all other values. Without it, they are errors.

    :class:`StepOptions` has the other keywords.
    """
    steps = [{**_of(branch), "when": condition} for condition, branch in branches.items()]
    steps += [] if otherwise is None else [_of(otherwise)]
    return _step("switch", steps, options)


def splitter(
    weights: Mapping[Step | str, float],
    shadows: Mapping[Step | str, float] | None = None,
    **options: Unpack[StepOptions],
) -> Step:
    """Returns a step that runs one of its branches, drawn by weight.

    Args:
        weights: The weight of each step, above 0. The sum need not be 100.
        shadows: Steps that get a copy of a share of the requests, above 0 and at most 1. Their
            responses are dropped.

    :class:`StepOptions` has the other keywords.
    """
    steps = [{**_of(branch), "weight": weight} for branch, weight in weights.items()]
    steps += [{**_of(branch), "shadow": share} for branch, share in (shadows or {}).items()]
    return _step("splitter", steps, options)


def map(  # A step has the word of the definition, in every language.
    branch: StepLike,
    over: str = "$response",
    *,
    in_flight: int = 64,
    **options: Unpack[StepOptions],
) -> Step:
    """Returns a step that runs another one for each item of a list; its response is their list.

    Args:
        branch: The step. It gets the item, which is ``$item`` in its paths.
        over: The path of the list.
        in_flight: The number of items that run at the same time.

    :class:`StepOptions` has the other keywords.
    """
    made = _step("map", _of(branch), options)
    made.definition.update(over=over, in_flight=in_flight)
    return made


def value(template: Template, *, name: str | None = None) -> Step:
    """Returns a step that calls no endpoint: its response is a path, or JSON with paths."""
    return Step({"value": template, **({} if name is None else {"name": name})})


def _step(kind: str, what: Any, options: StepOptions) -> Step:
    unknown = options.keys() - StepOptions.__annotations__.keys()
    if unknown:
        known = ", ".join(StepOptions.__annotations__)
        raise TypeError(f"a step has no keyword `{min(unknown)}`; there are {known}")
    unset = {key for key in ("name", "timeout") if options.get(key) is None}
    if options.get("dependency") == "hard":
        unset.add("dependency")
    return Step({kind: what, **{key: value for key, value in options.items() if key not in unset}})


def _of(given: StepLike) -> dict[str, Any]:
    if isinstance(given, Step):
        return given.definition
    if isinstance(given, str):
        return {"call": given}
    if isinstance(given, Endpoint):
        timeout = {} if given.timeout is None else {"timeout": given.timeout}
        return {"call": given.name, **timeout}
    if isinstance(given, Mapping):
        return {"parallel": _by_name(given)}
    if isinstance(given, (list, tuple)):
        return {"sequence": _all_of(given)}
    hint = "; a pipeline has no workers: serve the model at a path of its own, and write the path"
    raise _options.ProgramError(
        f"a step of a pipeline must be the path of an endpoint, `ls.step(…)`, a list or a dict of "
        f"steps, not {type(given).__name__}{hint if hasattr(given, 'predict') else ''}"
    )


def _all_of(steps: Sequence[StepLike]) -> list[dict[str, Any]]:
    return [_of(each) for each in steps]


def _by_name(branches: Mapping[str, StepLike]) -> dict[str, dict[str, Any]]:
    return {name: _of(branch) for name, branch in branches.items()}


# The kinds of steps, as in the definition.
_KINDS = ("call", "sequence", "parallel", "switch", "splitter", "map", "value")

# The keys of branches, which their step shows.
_BRANCH_KEYS = ("when", "weight", "shadow")


def _shown(definition: Mapping[str, Any]) -> str:
    """Returns the expression that makes a step."""
    kind = next(kind for kind in _KINDS if kind in definition)
    inner = definition[kind]
    keywords = {
        key: repr(value)
        for key, value in definition.items()
        if key != kind and key not in _BRANCH_KEYS and (key, value) != ("in_flight", 64)
    }
    if kind == "call":
        if not keywords:
            return repr(inner)
        arguments = [repr(inner)]
    elif kind == "value":
        arguments = [repr(inner)]
    elif kind == "map":
        arguments = [_shown(inner)]
    elif kind == "sequence":
        arguments = [_shown(each) for each in inner]
    elif kind == "parallel":
        arguments = [_dict([(repr(name), _shown(each)) for name, each in inner.items()])]
    elif kind == "switch":
        conditions = [(repr(each["when"]), _shown(each)) for each in inner if "when" in each]
        arguments = [_dict(conditions)]
        arguments += [f"otherwise={_shown(each)}" for each in inner if "when" not in each]
    else:
        drawn = [(_shown(each), repr(each["weight"])) for each in inner if "weight" in each]
        shadows = [(_shown(each), repr(each["shadow"])) for each in inner if "shadow" in each]
        arguments = [_dict(drawn), *([f"shadows={_dict(shadows)}"] if shadows else [])]
    arguments += [f"{key}={value}" for key, value in keywords.items()]
    return f"{'step' if kind == 'call' else kind}({_lines(arguments)})"


def _dict(items: list[tuple[str, str]]) -> str:
    return "{" + _lines([f"{key}: {value}" for key, value in items]) + "}"


def _lines(arguments: list[str]) -> str:
    """Returns arguments on one line, or on a line each where that is too long."""
    line = ", ".join(arguments)
    if len(line) <= 72 and "\n" not in line:
        return line
    indented = [each.replace("\n", "\n    ") for each in arguments]
    return "\n" + "".join(f"    {each},\n" for each in indented)
