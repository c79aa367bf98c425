"""The demo's requests, with the standard library only."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from uuid import uuid4

from console import DemoError


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

    def story(self, about):
        """Yields (milliseconds since the request, chunk) as the chunks arrive."""
        started = time.perf_counter()
        with closing(self._connect()) as connection:
            body = json.dumps({"about": about})
            response = self._send(connection, "/story", body, "application/json")
            for chunk in json_values(response):
                if "word" not in chunk:
                    raise DemoError(f"POST /story ended early: {chunk}")
                yield (time.perf_counter() - started) * 1000, chunk

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


def json_values(response):
    """Yields the JSON values of a streamed body, each as soon as it is complete."""
    decoder, text = json.JSONDecoder(), b""
    while piece := response.read1(65536):
        text += piece
        while text := text.lstrip():
            try:
                value, end = decoder.raw_decode(text.decode())
            except ValueError:
                break
            yield value
            text = text.decode()[end:].encode()
