"""Checks options against the table of options, which is defined in Rust (``crates/config``).

``_options.json`` is generated from that table; ``crates/config/tests/cases.json`` holds both sides
to the same messages.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

# Modules that only errors and few options need are imported where they are used: each launch of a
# server, worker and app host would wait for them.

#: Options by name, as a program gives them: their values are checked here.
Options = Mapping[str, Any]

#: The description of an option: a row of the table.
Option = Mapping[str, Any]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_BYTES = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*(B|[KMGT]i?B)", re.ASCII | re.IGNORECASE)


def _read_table() -> list[Option]:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_options.json")
    with open(path, encoding="utf-8") as file:
        table: list[Option] = json.load(file)
    return table


TABLE = _read_table()

# The category `Cc` of Unicode.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_API_KEY = re.compile(r"env:.+|sha256:[0-9a-fA-F]{64}", re.DOTALL)
_ORIGIN = re.compile(r"\*|https?://[!-.0-~]+")
_NETWORK = re.compile(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?")
_RATE = re.compile(r"0*[1-9][0-9]{0,8}/(s|min|h)")


def names(scope: str) -> list[str]:
    """Returns the names of the options of a scope, ``server`` or ``endpoint``."""
    return [option["name"] for option in TABLE if option["scope"] == scope]


def route_paths(options: Options) -> dict[str, Any]:
    """Returns the paths of the built-in routes that options set, by the name of the option. A path
    that is empty or False has no route."""
    return {
        option["name"]: options.get(option["name"], option["default"])
        for option in TABLE
        if option["scope"] == "server" and option["type"] == "path"
    }


def built_in_paths(options: Options) -> dict[str, str]:
    """Returns the paths that no endpoint may have, each with a name for its route."""
    reserved = [
        path
        for option in TABLE
        if options.get(option["name"], option.get("default"))
        for path in option.get("reserved", ())
    ]
    pages = ["/", *reserved]
    named = {path: name.removesuffix("_path") for name, path in route_paths(options).items()}
    return {
        **dict.fromkeys(pages, "built-in route"),
        **{path: name for path, name in named.items() if path},
    }


def can_be_shared(path: str) -> bool:
    """Returns whether several endpoints may have this path, because its requests name a model."""
    return any(path.endswith(end) for option in TABLE for end in option.get("shared", ()))


def errors(scope: str, options: Options) -> list[str]:
    """Returns a sentence for each option that is unknown, has an invalid value, or contradicts
    another option."""
    known = {option["name"]: option for option in TABLE if option["scope"] == scope}
    found: list[str] = []
    for name, value in options.items():
        if name not in known:
            found.append(_unknown(name, scope, known))
        elif not _fits(known[name], value):
            must = f"`{name}` must be {known[name]['expects']}"
            # The value may be a key.
            is_secret = known[name]["type"] == "api_keys"
            hint = "; `litplex key` prints such a line" if is_secret else f", not {_shown(value)}"
            found.append(must + hint)
        else:
            found += json_errors(name, value)
    contradictions = _contradictions if scope == "endpoint" else _server_contradictions
    return [*found, *contradictions(options)]


def json_errors(place: str, value: Any) -> Iterator[str]:
    """Yields a sentence for each part of an option that JSON, in which the server receives the
    option, cannot hold as it is."""
    if isinstance(value, str):
        if not _is_text(value):
            yield f"`{place}` must be a text that UTF-8 can hold, not {value!r}"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"`{place}` must be a finite number, not {value!r}"
    elif isinstance(value, dict):
        for key, each in value.items():
            if isinstance(key, str):
                yield from json_errors(f"{place}[{key!r}]", each)
            else:
                yield f"`{place}` must have texts as keys, not {key!r}"
    elif isinstance(value, (list, tuple)):
        for at, each in enumerate(value):
            yield from json_errors(f"{place}[{at}]", each)
    elif value is not None and not isinstance(value, int):
        yield (
            f"`{place}` must be a value that JSON can hold, not {value!r}; pass a text or a "
            "number, and convert it in `__init__`"
        )


def _is_text(value: str) -> bool:
    try:
        return value.encode() is not None
    except UnicodeEncodeError:
        return False


class ProgramError(ValueError):
    """The errors of a program, as sentences. A program that it ends prints them alone, without a
    traceback."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        if sys.excepthook is sys.__excepthook__:
            sys.excepthook = _show_errors


def _show_errors(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Prints the errors that end a program, with the line of the program."""
    if not issubclass(kind, ProgramError):
        sys.__excepthook__(kind, error, trace)
        return
    import traceback

    frames = traceback.extract_tb(trace)
    users = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
    where = f"{users[-1].filename}, line {users[-1].lineno}: " if users else ""
    print(f"error: {where}{error}", file=sys.stderr)


def raise_all(sentences: list[str]) -> None:
    """Raises one :class:`ProgramError` with all of these sentences, if there are any."""
    if len(sentences) == 1:
        raise ProgramError(sentences[0])
    if sentences:
        lines = "\n".join(f"  - {sentence}" for sentence in sentences)
        raise ProgramError(f"{len(sentences)} errors:\n{lines}")


# The places of options.
_PLACES = {
    "the server": "give it to `run_servers(…)`, in TOML above the first `[[endpoint]]`",
    "an endpoint": "give it to `LitServer(…)`, in TOML below an `[[endpoint]]`",
}
# Arguments of an API's constructor that are no options.
_API_ARGUMENTS = ("spec", "mcp")


def _unknown(name: str, scope: str, known: Mapping[str, Option]) -> str:
    whose, other = "the server", "an endpoint"
    if scope == "endpoint":
        whose, other = other, whose
    if any(option["name"] == name for option in TABLE):
        return f"`{name}` is an option of {other}, not of {whose}; {_PLACES[other]}"
    if scope == "endpoint" and name in _API_ARGUMENTS:
        return (
            f"`{name}` is an argument of the API, not an option; write `MyAPI({name}=…)`, in TOML "
            'the name of such an instance: `api = "models.py:my_api"`'
        )
    close = _closest(name, known)
    hint = f"did you mean `{close}`?" if close else f"valid options: {', '.join(sorted(known))}"
    return f"there is no option `{name}`; {hint}"


def hint_for_argument(name: str) -> str:
    """Returns a hint for an argument that the constructor of an API does not have."""
    scopes = {"endpoint": "LitServer", "server": "run_servers"}
    for scope, call in scopes.items():
        known = [option["name"] for option in TABLE if option["scope"] == scope]
        close = name if name in known else _closest(name, known)
        if close:
            return f"`{close}` is an argument of `{call}(…)`"
    return f"options are arguments of {' and '.join(f'`{call}(…)`' for call in scopes.values())}"


def _closest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is most like this one: a name that begins or ends with the same
    words, or else one with a similar spelling."""
    asked = _words(name)
    for part in (slice(len(asked)), slice(-len(asked), None)):
        for option in known if asked else ():
            if _words(option)[part] == asked:
                return option
    import difflib

    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.7)), None)


def _words(name: str) -> list[str]:
    """Returns the words of a name in the singular, without those that only mark a number."""
    words = name.lower().replace("-", "_").split("_")
    return [word.removesuffix("s") for word in words if word not in ("num", "n", "count", "")]


def _contradictions(options: Options) -> Iterator[str]:
    for given, missing in (("min_workers", "max_workers"), ("max_workers", "min_workers")):
        if given in options and missing not in options:
            yield (
                f"`{given}` needs `{missing}`; give both, or `workers_per_device` for a fixed "
                "number"
            )
    fewest: Any = options.get("min_workers")
    most: Any = options.get("max_workers")
    if _fits_integer({"min": 0}, fewest) and _fits_integer({"min": 0}, most) and fewest > most:
        yield f"`min_workers` must be at most `max_workers`, and {fewest} is above {most}"
    if "workers_per_device" in options and {"min_workers", "max_workers"} & options.keys():
        yield (
            "`workers_per_device` is a fixed number of workers, `min_workers` and `max_workers` "
            "let it move; leave out one or the other"
        )
    if "rate_burst" in options and "rate_limit" not in options:
        yield '`rate_burst` needs `rate_limit`, such as "10/s"'


def _server_contradictions(options: Options) -> Iterator[str]:
    needs = (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert"))
    for given, missing in needs:
        if given in options and missing not in options:
            yield f"`{given}` needs `{missing}`; give both, or leave out TLS"
    together = ("jwt_issuer", "jwt_audience", "jwt_jwks")
    for name in together if options.keys() & set(together) else ():
        if name not in options:
            yield f"`{name}` is missing: `jwt_issuer`, `jwt_audience` and `jwt_jwks` go together"
    jwks = options.get("jwt_jwks")
    if "jwt_ca" in options and not (isinstance(jwks, str) and jwks.startswith("https://")):
        yield '`jwt_ca` needs a `jwt_jwks` that begins with "https://"'
    yield from _admin_contradictions(options)


def _admin_contradictions(options: Options) -> Iterator[str]:
    keys = ("admin_keys", "admin_keys_file", "admin_read_keys", "admin_read_keys_file")
    if "admin_host" in options and "admin_port" not in options:
        yield "`admin_host` needs `admin_port`, such as 9000"
    given = [name for name in keys if name in options]
    if "admin_port" not in options and options.get("admin_dashboard") is not True:
        for name in given:
            yield f"`{name}` needs `admin_port`, such as 9000, or `admin_dashboard`"
        return
    opened = "admin_port" if "admin_port" in options else "admin_dashboard"
    if not given:
        yield (
            f"`{opened}` needs keys: give `admin_keys` or `admin_keys_file`; `litplex key` "
            "creates them"
        )
    port = options.get("port", 8000)
    if port and options.get("admin_port") == port:
        yield (f"`admin_port` and `port` are both {port}; give the admin API a port of its own")


def _fits(option: Option, value: Any) -> bool:
    return _CHECKS[option["type"]](option, value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fits_integer(option: Option, value: Any) -> bool:
    if value is False:
        return bool(option.get("or_false", False))
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and bool(option.get("min", value) <= value <= option.get("max", value))


def _fits_number(option: Option, value: Any) -> bool:
    if not _is_number(value) or value != value or value == float("inf"):
        return False
    is_above = value > 0 if option.get("above_zero") else value >= 0
    return bool(is_above and value <= option.get("max", value))


def _fits_seconds(option: Option, value: Any) -> bool:
    if value is False:
        return bool(option.get("or_false", False))
    if isinstance(value, str):
        return value in option.get("or", ())
    return _fits_number(option, value) and bool(value <= 1e9)


def _fits_path(option: Option, value: Any) -> bool:
    if value is False:
        return bool(option.get("or_false", False))
    if not isinstance(value, str) or not value.startswith("/") or set(value) & set("?#{}*"):
        return False
    return _CONTROL.search(value) is None


def _fits_cost(_: Option, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    field, measure = value.rpartition(":")[::2]
    is_measured = measure in ("length", "words", "value") and all(field.split("."))
    return is_measured or value == "body:bytes"


def _fits_strings(_: Option, value: Any) -> bool:
    is_map = isinstance(value, dict)
    return is_map and all(isinstance(item, str) for pair in value.items() for item in pair)


def _fits_api_keys(_: Option, value: Any) -> bool:
    return _fits_strings(_, value) and all(map(_API_KEY.fullmatch, value.values()))


def _fits_rate(_: Option, value: Any) -> bool:
    return isinstance(value, str) and _RATE.fullmatch(value) is not None


def _fits_name(_: Option, value: Any) -> bool:
    if not isinstance(value, str) or not value or value.startswith("/"):
        return False
    return _CONTROL.search(value) is None


def _fits_names(option: Option, value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(_fits_name(option, name) for name in value)


def _fits_devices(option: Option, value: Any) -> bool:
    if value == "auto":
        return True
    return _fits_indices(option, value) or _fits_integer({"min": 1}, value)


def _fits_indices(_: Option, value: Any) -> bool:
    is_list = isinstance(value, (list, tuple))
    return is_list and len(value) > 0 and all(_fits_integer({"min": 0}, item) for item in value)


def _fits_texts(_: Option, value: Any) -> bool:
    is_list = isinstance(value, (list, tuple))
    return is_list and all(isinstance(text, str) and text != "" for text in value)


def _fits_codings(option: Option, value: Any) -> bool:
    is_list = isinstance(value, (list, tuple))
    return isinstance(value, bool) or (is_list and all(name in option["choices"] for name in value))


def _fits_hosts(_: Option, value: Any) -> bool:
    def is_pattern(text: Any) -> bool:
        if not isinstance(text, str):
            return False
        return text == "*" or _is_host(text[2:] if text.startswith("*.") else text)

    return isinstance(value, (list, tuple)) and all(map(is_pattern, value))


def _is_host(name: str) -> bool:
    import ipaddress

    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(bare))
    return re.fullmatch(r"[A-Za-z0-9._-]+", name) is not None


def _fits_origins(_: Option, value: Any) -> bool:
    is_list = isinstance(value, (list, tuple))
    return is_list and all(isinstance(text, str) and _ORIGIN.fullmatch(text) for text in value)


def _fits_networks(_: Option, value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_network, value))


def _is_network(text: Any) -> bool:
    import ipaddress

    # Python reads masks such as 255.0.0.0, too.
    if not isinstance(text, str) or _NETWORK.fullmatch(text) is None:
        return False
    try:
        return ipaddress.ip_network(text, strict=False) is not None
    except ValueError:
        return False


def _fits_bytes(_: Option, value: Any) -> bool:
    if isinstance(value, str):
        match = _BYTES.fullmatch(value)
        return match is not None and float(match[1]) * _unit_bytes(match[2]) >= 1
    return _fits_integer({"min": 1}, value)


def _unit_bytes(unit: str) -> int:
    base = 1024 if "i" in unit.lower() else 1000
    power: int = base ** "bkmgt".index(unit[0].lower())
    return power


_CHECKS: Mapping[str, Callable[[Option, Any], bool]] = {
    "integer": _fits_integer,
    "number": _fits_number,
    "seconds": _fits_seconds,
    "path": _fits_path,
    "cost": _fits_cost,
    "texts": _fits_texts,
    "name": _fits_name,
    "names": _fits_names,
    "codings": _fits_codings,
    "hosts": _fits_hosts,
    "origins": _fits_origins,
    "networks": _fits_networks,
    "strings": _fits_strings,
    "api_keys": _fits_api_keys,
    "rate": _fits_rate,
    "devices": _fits_devices,
    "cores": _fits_indices,
    "bytes": _fits_bytes,
    "boolean": lambda _, value: isinstance(value, bool),
    "table": lambda _, value: isinstance(value, dict),
    "steps": lambda _, value: isinstance(value, (list, tuple)),
    "string": lambda _, value: isinstance(value, str) and value != "",
    "choice": lambda option, value: value in option["choices"],
}


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):
        return repr(value)
