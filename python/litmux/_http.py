"""What hooks get from a request and give back besides plain values."""


class Response:
    """An answer that is sent as it is, instead of being turned into JSON.

    Args:
        content: The body: ``bytes``, or ``str`` to be sent as UTF-8.
        media_type: The ``Content-Type``. Default: ``application/octet-stream`` for bytes,
            ``text/plain; charset=utf-8`` for text.
        status: The HTTP status, 100 to 599. Default: 200.
        headers: Further headers, name to value.
    """

    def __init__(self, content=b"", media_type=None, status=200, headers=None):
        if not isinstance(content, (bytes, bytearray, memoryview, str)):
            kind = type(content).__name__
            raise TypeError(f"Response content must be bytes or str, not {kind}")
        is_text = isinstance(content, str)
        default = "text/plain; charset=utf-8" if is_text else "application/octet-stream"
        self.body = content.encode() if is_text else bytes(content)
        self.media_type = default if media_type is None else media_type
        self.status_code = status
        self.headers = dict(headers or {})


class HTTPException(Exception):
    """Raised in any hook, it answers this request with its status, detail and headers.

    Args:
        status_code: The HTTP status, 400 to 599.
        detail: What the client reads under ``detail``; anything that JSON can hold.
        headers: Headers to add to the answer, name to value.
    """

    def __init__(self, status_code, detail=None, headers=None):
        super().__init__(status_code, detail)
        self.status_code = status_code
        self.detail = detail
        self.headers = headers


class UploadFile:
    """A file of a form.

    Attributes:
        filename: The name that the client gave.
        content_type: The media type that the client gave, or None.
        size: The length in bytes.
    """

    def __init__(self, content, filename, content_type):
        self._content = content
        self._at = 0
        self.filename = filename
        self.content_type = content_type
        self.size = len(content)

    def read(self, size=-1):
        """Returns the next ``size`` bytes, or all that are left."""
        end = self.size if size is None or size < 0 else self._at + size
        piece = self._content[self._at : end]
        self._at += len(piece)
        return piece

    def seek(self, offset):
        """Goes to this byte."""
        self._at = offset

    def __repr__(self):
        return f"UploadFile(filename={self.filename!r}, size={self.size})"


class Form(dict):
    """The fields of a form by name: ``str`` for a field, :class:`UploadFile` for a file.

    Of several with one name, the last; :meth:`getlist` returns all.
    """

    def __init__(self, items):
        super().__init__(items)
        self._items = list(items)

    def getlist(self, name):
        """Returns all values of this name, in their order."""
        return [value for key, value in self._items if key == name]


class Context(dict):
    """What the hooks of one request share: a dict of their own, and the request's facts.

    Attributes:
        method: The HTTP method.
        path: The path, without the query.
        query: The query as it was sent.
        headers: The headers, names in lower case; of several with one name, the last.
        remaining: Seconds that were left of the time budget when the worker was given the job.
    """

    def __init__(self, facts=None):
        super().__init__()
        facts = facts or {}
        self.method = facts.get("method", "POST")
        self.path = facts.get("path", "")
        self.query = facts.get("query", "")
        self.headers = dict(facts.get("headers", ()))
        self.remaining = facts.get("remaining_ms", 0) / 1000
