"""A collector of traces for tests: it takes OTLP over HTTP and keeps the spans.

It reads protobuf by itself, field by field as OTLP's definition numbers them, so that what is
tested is what goes over the wire.
"""

import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from conftest import wait_until


class Span:
    """One span, as it was sent.

    Attributes:
        resource: The attributes of the sender.
        links: The trace and the span of each link, in hexadecimal.
    """

    def __init__(self, fields, resource):
        self.resource = resource
        self.trace_id = _one(fields, 1).hex()
        self.span_id = _one(fields, 2).hex()
        self.state = _one(fields, 3).decode()
        self.parent = _one(fields, 4).hex()
        self.name = _one(fields, 5).decode()
        self.kind = _one(fields, 6, 0)
        self.start, self.end = _one(fields, 7, 0), _one(fields, 8, 0)
        self.attributes = _attributes(fields.get(9, []))
        links = map(_fields, fields.get(13, []))
        self.links = [(_one(link, 1).hex(), _one(link, 2).hex()) for link in links]
        self.status = _one(_fields(_one(fields, 15)), 3, 0)

    @property
    def seconds(self):
        return (self.end - self.start) / 1e9

    def __repr__(self):
        return f"Span({self.name!r}, {self.span_id} in {self.trace_id}, {self.attributes})"


class Collector:
    """Listens on a free port while it is entered."""

    def __init__(self):
        self.spans: list[Span] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests.append((self.path, dict(self.headers)))
                collector.spans.extend(_spans(body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for(self, count):
        """Returns the spans once there are so many."""
        wait_until(lambda: len(self.spans) >= count, lambda: f"only {self.spans}")
        return self.spans

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def children(self, parent):
        """Returns the spans under this one by name; each name may be there once."""
        under = [span for span in self.spans if span.parent == parent.span_id]
        assert len({span.name for span in under}) == len(under), under
        assert all(span.trace_id == parent.trace_id for span in under)
        return {span.name: span for span in under}


def _spans(body):
    for resource_spans in map(_fields, _fields(body).get(1, [])):
        resource = _attributes(_fields(_one(resource_spans, 1)).get(1, []))
        for scope_spans in map(_fields, resource_spans.get(2, [])):
            for span in scope_spans.get(2, []):
                yield Span(_fields(span), resource)


def _attributes(pairs):
    return {_one(pair, 1).decode(): _value(_one(pair, 2)) for pair in map(_fields, pairs)}


def _value(message):
    fields = _fields(message)
    if 1 in fields:
        return _one(fields, 1).decode()
    return _one(fields, 3, None)


def _one(fields, number, default=b""):
    return fields.get(number, [default])[-1]


def _fields(message):
    """Returns the values of a protobuf message by the numbers of their fields."""
    fields: dict[int, list] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
        elif kind == 1:
            value, at = struct.unpack_from("<Q", message, at)[0], at + 8
        elif kind == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            assert kind == 5, f"field {tag >> 3} has the wire type {kind}"
            value, at = struct.unpack_from("<I", message, at)[0], at + 4
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
