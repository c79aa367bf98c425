"""The demo's requests, with the standard library only."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from uuid import uuid4

from console import DemoError

CHAT = "/v1/chat/completions"


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
        boundary = uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; '
            f'filename="{picture.name}"\r\nContent-Type: {content_type}\r\n\r\n'
        )
        body = head.encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        return self._post("/ocr", body, f"multipart/form-data; boundary={boundary}")

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

    def _embed_one(self, text):
        return self._post("/embed", json.dumps({"text": text}), "application/json")

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


def events(response):
    """Yields the JSON values of server-sent events as they arrive, up to `[DONE]`."""
    for line in response:
        field, _, data = line.decode().rstrip("\n").partition(": ")
        if field == "data" and data == "[DONE]":
            return
        if field == "data":
            yield json.loads(data)
    raise DemoError("the stream of events ended without [DONE]")
