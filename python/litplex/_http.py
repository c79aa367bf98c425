"""The types of requests and responses that hooks use besides plain values."""

from __future__ import annotations

import io
import time
from collections.abc import Awaitable, Generator, Iterable, Mapping
from typing import Any

_now = time.monotonic


class Request:
    """As the annotation of ``request``: ``decode_request`` takes any content, the value of JSON, a
    :class:`Form`, or ``bytes``. Without an annotation it does the same."""


class Response:
    """A response that is sent as it is, not converted to JSON.

    Args:
        content: The body: ``bytes``, ``str`` to be sent as UTF-8, or None for an empty one.
        status_code: The HTTP status, 100 to 599. Default: 200.
        headers: Further headers, name to value.
        media_type: The ``Content-Type``. Default: that of ``headers``, or
            ``application/octet-stream`` for bytes and ``text/plain; charset=utf-8`` for text.

    Raises:
        TypeError: ``content`` is of another type.
    """

    def __init__(
        self,
        content: bytes | bytearray | memoryview | str | None = b"",
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        given: object = b"" if content is None else content
        if isinstance(given, str):
            self.body, default = given.encode(), "text/plain; charset=utf-8"
        elif isinstance(given, (bytes, bytearray, memoryview)):
            self.body, default = bytes(given), "application/octet-stream"
        else:
            kind = type(given).__name__
            raise TypeError(f"Response content must be bytes or str, not {kind}")
        self.media_type = default if media_type is None else media_type
        self.status_code = status_code
        self.headers = dict(headers or {})


class HTTPException(Exception):
    """The error response to this request, raised in any hook.

    Args:
        status_code: The HTTP status, 400 to 599.
        detail: The value of ``detail`` in the response; any value that JSON can hold.
            Default: None.
        headers: Further headers of the response, name to value. Default: none.
    """

    def __init__(
        self, status_code: int, detail: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status_code, detail)
        self.status_code = status_code
        self.detail = detail
        self.headers = headers


class _Content(bytes):
    """A piece of a file; awaiting it returns it."""

    def __await__(self) -> Generator[Any, None, bytes]:
        yield from ()
        return self


class _Done:
    """A completed operation; awaiting it returns None."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


class UploadFile:
    """A file of a form. Its methods may be awaited, like those of Starlette's files.

    Attributes:
        filename: The name that the client gave.
        content_type: The media type that the client gave, or None.
        size: The length in bytes.
        file: The content as a file object, for libraries that read one.
    """

    def __init__(self, content: bytes, filename: str, content_type: str | None) -> None:
        self.file = io.BytesIO(content)
        self.filename = filename
        self.content_type = content_type
        self.size = len(content)

    def read(self, size: int | None = -1) -> bytes:
        """Returns the next ``size`` bytes. Default: all remaining bytes."""
        return _Content(self.file.read(size))

    def seek(self, offset: int) -> Awaitable[None]:
        """Sets the position, in bytes from the start."""
        self.file.seek(offset)
        return _Done()

    def close(self) -> Awaitable[None]:
        """Releases the content."""
        self.file.close()
        return _Done()

    def __repr__(self) -> str:
        return f"UploadFile(filename={self.filename!r}, size={self.size})"


class Form(dict[str, "str | UploadFile"]):
    """The fields of a form by name: ``str`` for a field, :class:`UploadFile` for a file.

    It has the last of several values with one name; :meth:`getlist` and :meth:`multi_items` return
    all.
    """

    def __init__(self, items: Iterable[tuple[str, str | UploadFile]]) -> None:
        self._items = list(items)
        super().__init__(self._items)

    def getlist(self, name: str) -> list[str | UploadFile]:
        """Returns all values of this name, in the order of the form."""
        return [value for key, value in self._items if key == name]

    def multi_items(self) -> list[tuple[str, str | UploadFile]]:
        """Returns all pairs of a name and a value, in the order of the form."""
        return list(self._items)


class Context(dict[str, Any]):
    """The state that the hooks of one request share: a dict for their values, and the facts of the
    request.

    Attributes:
        method: The HTTP method.
        path: The path, without the query.
        query: The query as the client sent it.
        headers: The headers, names in lower case; the last of several headers with one name.
        request_id: The id of the request, if the server gives ids to requests; otherwise None.
        traceparent: The position of the request in a trace, in the format of W3C's trace context;
            empty if the request is not traced. ``headers`` has it too, for
            ``opentelemetry.propagate.extract``.
        cancelled: Whether no caller waits for the response any more: the client left, or the
            deadline has passed. It turns true while a hook runs, and may be read from any thread.
        remaining: The rest of the time budget in seconds; 0 after the deadline.
    """

    def __init__(self, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        get = (facts or {}).get
        self.method = get("method", "POST")
        self.path = get("path", "")
        self.query = get("query", "")
        self.headers = dict(get("headers", ()))
        self.request_id: str | None = None
        self.cancelled = False
        # The name of the request in the log: its id, or what operators know it by.
        self._name = ""
        # Measures the stages of the request, if the server asked for them.
        self._stages: Any = None
        # Whether the caller is a hook, which takes values that JSON cannot hold.
        self._takes_values = False
        self._deadline = _now() + get("remaining_ms", 0) / 1000

    @property
    def traceparent(self) -> str:
        traceparent: str = self.headers.get("traceparent", "")
        return traceparent

    @property
    def remaining(self) -> float:
        seconds: float = self._deadline - _now()
        return max(0.0, seconds)
