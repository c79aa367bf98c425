"""Requests of OpenAI's protocols as plain objects, where pydantic is not there for its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

# The fields of each kind of object with their defaults, and the kinds of those that are objects
# themselves. `schema_` is sent as `schema`, which pydantic has another use for.
_KINDS: dict[str, Any] = {
    "chat": (
        {
            "model": "",
            "messages": (),
            "temperature": 0.7,
            "top_p": 1.0,
            "n": 1,
            "max_tokens": None,
            "max_completion_tokens": None,
            "stop": None,
            "stream": False,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "user": None,
            "tools": None,
            "tool_choice": "auto",
            "response_format": None,
            "reasoning_effort": None,
            "metadata": None,
        },
        {"messages": "message", "tools": "tool", "response_format": "response_format"},
    ),
    "message": (
        {
            "role": None,
            "content": None,
            "name": None,
            "tool_calls": None,
            "tool_call_id": None,
            "function_call": None,
        },
        {"content": "part", "tool_calls": "tool_call", "function_call": "function_call"},
    ),
    "part": (
        {"type": None, "text": None, "image_url": None, "input_audio": None},
        {"image_url": "image", "input_audio": "audio"},
    ),
    "image": ({"url": None, "detail": "auto"}, {}),
    "audio": ({"data": None, "format": None}, {}),
    "tool": ({"type": None, "function": None}, {"function": "function"}),
    "function": ({"name": None, "description": None, "parameters": None}, {}),
    "tool_call": (
        {"index": 0, "id": None, "type": "function", "function": None},
        {"function": "function_call"},
    ),
    "function_call": ({"name": None, "arguments": None}, {}),
    "response_format": ({"type": None, "json_schema": None}, {"json_schema": "json_schema"}),
    "json_schema": ({"name": None, "description": None, "schema_": None, "strict": False}, {}),
    "embeddings": (
        {
            "input": None,
            "model": "",
            "dimensions": None,
            "encoding_format": "float",
            "user": None,
        },
        {},
    ),
}


def _integer(value: Any) -> Any:
    # Not by way of a float where it is one of many digits.
    return int(value) if isinstance(value, int) else int(float(value))


def _boolean(value: Any) -> Any:
    return str(value).lower() in ("true", "1")


def _input(value: Any) -> Any:
    """Returns the input of embeddings, with token ids as integers."""
    if isinstance(value, list):
        return [_input(item) for item in value]
    return value if isinstance(value, str) else _integer(value)


# Fields that clients may write as another kind of number, or as a text.
_CONVERTERS: dict[str, Any] = {
    "temperature": float,
    "top_p": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "max_tokens": _integer,
    "max_completion_tokens": _integer,
    "dimensions": _integer,
    "index": _integer,
    "stream": _boolean,
    "input": _input,
}


class Record:
    """An object of a request, whose fields are its attributes."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.__dict__.update(fields)

    def __repr__(self) -> Any:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"Record({fields})"

    def __eq__(self, other: Any) -> Any:
        return isinstance(other, Record) and vars(self) == vars(other)

    def model_dump(self, *, exclude: Any = ()) -> Any:
        """Returns the fields as a dict, and those of the objects within."""
        return {name: _dump(value) for name, value in vars(self).items() if name not in exclude}


class EmbeddingRecord(Record):
    """A request of embeddings."""

    input: Any

    def get_num_items(self) -> Any:
        """Returns how many vectors the client wants."""
        is_one = isinstance(self.input, str) or isinstance(self.input[0], int)
        return 1 if is_one else len(self.input)

    def ensure_list(self) -> Any:
        """Returns the input as a list."""
        return self.input if isinstance(self.input, list) else [self.input]


def chat_request(value: Any) -> Any:
    """Returns the request of a chat; for one answer, because the server asks for each of ``n``."""
    request = _make("chat", value)
    request.n = 1
    return request


def embedding_request(value: Any) -> Any:
    """Returns the request of embeddings."""
    return _make("embeddings", value, EmbeddingRecord)


def _make(kind: Any, value: Any, record: type[Record] = Record) -> Any:
    """Returns the object of a kind that a value is, or those of a list. What it has besides the
    fields of its kind are its attributes too, but those named like its methods."""
    if isinstance(value, list):
        return [_make(kind, item) for item in value]
    if not isinstance(value, dict):
        return value
    defaults, kinds = _KINDS[kind]
    fields = {name: _field(value, name, default) for name, default in defaults.items()}
    known = {name.rstrip("_") for name in defaults}
    others = {name: value[name] for name in value if name not in known}
    fields = {**{n: v for n, v in others.items() if not hasattr(record, n)}, **fields}
    for name, kind_of_field in kinds.items():
        fields[name] = _make(kind_of_field, fields[name])
    return record(fields)


def _field(value: Any, name: str, default: Any) -> Any:
    """Returns a field, whose null is as if it were not there."""
    found = value.get(name.rstrip("_"))
    if found is None:
        return default
    convert = _CONVERTERS.get(name)
    return found if convert is None else convert(found)


def _dump(value: Any) -> Any:
    if isinstance(value, Record):
        return value.model_dump()
    return [_dump(item) for item in value] if isinstance(value, list) else value
