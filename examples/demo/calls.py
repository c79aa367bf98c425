"""The demo's requests, with the standard library only."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from uuid import uuid4

from console import DemoError

CHAT = "/v1/chat/completions"
STEP_SECONDS = re.compile(r"^litplex_step_seconds_sum\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Answer:
    body: dict
    milliseconds: float


class Client:
    def __init__(self, port):
        self.port = port

    def healthy(self):
        try:
            with closing(self._connect(timeout=2)) as connection:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False

    def read_raw(self, picture, content_type):
        return self._post("/ocr", picture.read_bytes(), content_type)

    def read_upload(self, picture, content_type):
        return self._upload("/ocr", picture, content_type)

    def add_document(self, picture, content_type):
        return self._upload("/documents", picture, content_type)

    @contextmanager
    def steps(self, pipeline, names):
        """Gives a dict, which has the milliseconds of these steps of a pipeline at the end."""
        steps, before = {}, self._step_milliseconds(pipeline)
        yield steps
        after = self._step_milliseconds(pipeline)
        steps.update((name, after.get(name, 0) - before.get(name, 0)) for name in names)

    def _step_milliseconds(self, pipeline):
        """Returns the time of each step since the start of the server, as it is measured there."""
        with closing(self._connect()) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        steps = {}
        for labels, seconds in STEP_SECONDS.findall(text):
            labels = dict(LABEL.findall(labels))
            if labels["endpoint"] == pipeline:
                steps[labels["step"]] = steps.get(labels["step"], 0) + float(seconds) * 1000
        return steps

    def embed(self, texts):
        """Sends a request per text, all at once; returns the responses in their order."""
        with ThreadPoolExecutor(len(texts)) as pool:
            return list(pool.map(self._embed_one, texts))

    def chats(self, requests):
        """Sends all requests at once; returns the whole responses in their order."""
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(self._chat_one, requests))

    def stream_chat(self, request):
        """Yields (milliseconds since the request, event) as the events arrive."""
        started = time.perf_counter()
        with closing(self._connect()) as connection:
            body = json.dumps({**request, "stream": True})
            for event in events(self._send(connection, CHAT, body, "application/json")):
                if "choices" not in event:
                    raise DemoError(f"POST {CHAT} ended early: {event}")
                yield (time.perf_counter() - started) * 1000, event

    def _chat_one(self, request):
        return self._post(CHAT, json.dumps(request), "application/json")

    def ask(self, question):
        """Yields the values of the stream as they arrive."""
        with closing(self._connect()) as connection:
            body = json.dumps({"question": question})
            for value in json_lines(self._send(connection, "/ask", body, "application/json")):
                if "error" in value:
                    raise DemoError(f"POST /ask ended early: {value}")
                yield value

    def _embed_one(self, text):
        return self._post("/embed", json.dumps({"text": text}), "application/json")

    def _upload(self, path, picture, content_type):
        boundary = uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; '
            f'filename="{picture.name}"\r\nContent-Type: {content_type}\r\n\r\n'
        )
        body = head.encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return self._post(path, body, f"multipart/form-data; boundary={boundary}")

    def _post(self, path, body, content_type):
        started = time.perf_counter()
        with closing(self._connect()) as connection:
            answer = json.loads(self._send(connection, path, body, content_type).read())
        return Answer(answer, (time.perf_counter() - started) * 1000)

    def _connect(self, timeout=60):
        return HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def _send(self, connection, path, body, content_type):
        connection.request("POST", path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        if response.status != 200:
            detail = response.read(500).decode(errors="replace")
            raise DemoError(f"POST {path} answered {response.status}: {detail}")
        return response


def json_lines(response):
    for line in response:
        yield json.loads(line)


def events(response):
    """Yields the JSON values of server-sent events as they arrive, up to `[DONE]`."""
    for line in response:
        field, _, data = line.decode().rstrip("\n").partition(": ")
        if field == "data" and data == "[DONE]":
            return
        if field == "data":
            yield json.loads(data)
    raise DemoError("the stream of events ended without [DONE]")
