"""What hooks get from a request and give back besides plain values."""

from __future__ import annotations

import io
import time
from collections.abc import Awaitable, Generator, Iterable, Mapping
from typing import Any

_now = time.monotonic


class Request:
    """Says, as the annotation of ``request``, that ``decode_request`` takes any content: the value
    of JSON, a :class:`Form`, or ``bytes``. That is so without it too."""


class Response:
    """An answer that is sent as it is, instead of being turned into JSON.

    Args:
        content: The body: ``bytes``, ``str`` to be sent as UTF-8, or None for an empty one.
        status_code: The HTTP status, 100 to 599. Default: 200.
        headers: Further headers, name to value.
        media_type: The ``Content-Type``. Default: that of ``headers``, or
            ``application/octet-stream`` for bytes and ``text/plain; charset=utf-8`` for text.
    """

    def __init__(
        self,
        content: bytes | bytearray | memoryview | str | None = b"",
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        content = b"" if content is None else content
        if not isinstance(content, (bytes, bytearray, memoryview, str)):
            kind = type(content).__name__
            raise TypeError(f"Response content must be bytes or str, not {kind}")
        if isinstance(content, str):
            self.body, default = content.encode(), "text/plain; charset=utf-8"
        else:
            self.body, default = bytes(content), "application/octet-stream"
        self.media_type = default if media_type is None else media_type
        self.status_code = status_code
        self.headers = dict(headers or {})


class HTTPException(Exception):
    """Raised in any hook, it answers this request with its status, detail and headers.

    Args:
        status_code: The HTTP status, 400 to 599.
        detail: What the client reads under ``detail``; anything that JSON can hold.
        headers: Headers to add to the answer, name to value.
    """

    def __init__(
        self, status_code: int, detail: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status_code, detail)
        self.status_code = status_code
        self.detail = detail
        self.headers = headers


class _Content(bytes):
    """A piece of a file; awaiting it gives it."""

    def __await__(self) -> Generator[Any, None, bytes]:
        yield from ()
        return self


class _Done:
    """What is done already; awaiting it gives None."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


class UploadFile:
    """A file of a form. Its methods may be awaited, as those of Starlette's files are.

    Attributes:
        filename: The name that the client gave.
        content_type: The media type that the client gave, or None.
        size: The length in bytes.
        file: The content as a file object, for what reads those.
    """

    def __init__(self, content: bytes, filename: str, content_type: str | None) -> None:
        self.file = io.BytesIO(content)
        self.filename = filename
        self.content_type = content_type
        self.size = len(content)

    def read(self, size: int | None = -1) -> bytes:
        """Returns the next ``size`` bytes, or all that are left."""
        return _Content(self.file.read(size))

    def seek(self, offset: int) -> Awaitable[None]:
        """Goes to this byte."""
        self.file.seek(offset)
        return _Done()

    def close(self) -> Awaitable[None]:
        """Lets go of the content."""
        self.file.close()
        return _Done()

    def __repr__(self):
        return f"UploadFile(filename={self.filename!r}, size={self.size})"


class Form(dict):
    """The fields of a form by name: ``str`` for a field, :class:`UploadFile` for a file.

    Of several with one name, the last; :meth:`getlist` and :meth:`multi_items` return all.
    """

    def __init__(self, items: Iterable[tuple[str, str | UploadFile]]) -> None:
        self._items = list(items)
        super().__init__(self._items)

    def getlist(self, name: str) -> list[str | UploadFile]:
        """Returns all values of this name, in their order."""
        return [value for key, value in self._items if key == name]

    def multi_items(self) -> list[tuple[str, str | UploadFile]]:
        """Returns every field with its name, in their order."""
        return list(self._items)


class Context(dict):
    """What the hooks of one request share: a dict of their own, and the request's facts.

    Attributes:
        method: The HTTP method.
        path: The path, without the query.
        query: The query as it was sent.
        headers: The headers, names in lower case; of several with one name, the last.
        request_id: Its id, where the server gives ids to requests; otherwise None.
        traceparent: Where the request is in a trace, as W3C's trace context writes it; empty where
            it is in none. ``headers`` has it too, for ``opentelemetry.propagate.extract``.
        cancelled: Whether nobody waits for the answer any more: the client left, or its time is
            over. It turns true while a hook runs, and may be read from any thread.
        remaining: Seconds that are left of the time budget; 0 when it is over.
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
        # What measures the stages of the request, where the server wants to know.
        self._stages: Any = None
        self._deadline = _now() + get("remaining_ms", 0) / 1000

    @property
    def traceparent(self) -> str:
        return self.headers.get("traceparent", "")

    @property
    def remaining(self) -> float:
        return max(0.0, self._deadline - _now())
