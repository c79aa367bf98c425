"""The inputs of the workloads, and the checks of their responses."""

import base64
import functools
import http.client
import json
import random
import threading
import time
import zlib
from abc import ABC, abstractmethod

from . import paths

EMBED = ("w6", "w6b1")
ECHO = ("w9", "w9async", "w9hop")


@functools.cache
def image():
    """The 768 KiB that w5raw sends and w5 as base64, and their crc32."""
    raw = random.Random(7).randbytes(786432)
    return raw, zlib.crc32(raw)


@functools.cache
def image_text():
    return base64.b64encode(image()[0]).decode()


@functools.cache
def echo_text():
    """The 10 KB that w9 sends to and fro."""
    return base64.b64encode(random.Random(9).randbytes(7680)).decode()


@functools.cache
def embed_data():
    """The texts of w6 and their reference embeddings."""
    try:
        refs = json.loads((paths.MODEL / "refs.json").read_text())
    except FileNotFoundError:
        raise RuntimeError("the model of w6 is not there: run ./setup --w6") from None
    return json.loads(paths.SENTENCES.read_text()), refs


def content_type(workload):
    return "application/octet-stream" if workload == "w5raw" else "application/json"


def body_file(workload):
    """Writes the bodies that wrk sends in turn, one per line, or the raw body; returns the path."""
    file = paths.LOGS / f"body-{workload}.txt"
    if workload == "w5raw":
        file.write_bytes(image()[0])
        return file
    if workload in ("w5", "w5typed"):
        bodies = [{"image": image_text()}]
    elif workload in ECHO:
        bodies = [{"input": echo_text()}]
    elif workload in EMBED:
        bodies = [{"text": text} for text in embed_data()[0]]
    else:
        bodies = [{"input": 4.0}]
    file.write_text("".join(json.dumps(b) + "\n" for b in bodies))
    return file


class Question(ABC):
    """A request and its expected response."""

    body: dict

    def data(self) -> str | bytes:
        return json.dumps(self.body)

    @abstractmethod
    def right(self, answer: bytes) -> bool: ...


class SquareQuestion(Question):
    def __init__(self, rng):
        self.x = rng.randrange(2, 10**6) / 2
        self.body = {"input": self.x}

    def right(self, answer):
        want = self.x * self.x
        return abs(json.loads(answer)["output"] - want) <= 1e-6 * want


class StreamQuestion(Question):
    def __init__(self, rng):
        self.body = {"input": 3}

    def right(self, answer):
        return answer.count(b"output") == 3


class ImageQuestion(Question):
    def __init__(self, rng):
        self.body, self.crc = {"image": image_text()}, image()[1]

    def right(self, answer):
        return json.loads(answer)["output"] == self.crc


class RawImageQuestion(ImageQuestion):
    def data(self):
        return image()[0]


class EchoQuestion(Question):
    def __init__(self, rng):
        text = echo_text()
        at = rng.randrange(len(text))
        self.body = {"input": text[at:] + text[:at]}

    def right(self, answer):
        return json.loads(answer)["output"] == self.body["input"]


class EmbedQuestion(Question):
    def __init__(self, rng):
        texts, refs = embed_data()
        i = rng.randrange(len(texts))
        self.body, self.ref = {"text": texts[i]}, refs[i]

    def right(self, answer):
        got = json.loads(answer)["embedding"]
        return len(got) == 384 and sum(a * b for a, b in zip(got, self.ref, strict=True)) > 0.9999


QUESTIONS = {"w3": StreamQuestion, "w5": ImageQuestion, "w5raw": RawImageQuestion}
QUESTIONS |= {"w5typed": ImageQuestion}
QUESTIONS |= dict.fromkeys(EMBED, EmbedQuestion) | dict.fromkeys(ECHO, EchoQuestion)


class Check:
    """Sends its own requests over one connection and checks every response."""

    def __init__(self, server):
        self.port, self.path, self.workload = server.port, server.path, server.workload
        self.question = QUESTIONS.get(server.workload, SquareQuestion)
        self.checked = self.wrong = self.errors = 0
        self.last = ""  # the last answer or error, for messages
        self.connection = None
        self.rng = random.Random()

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def one(self):
        """Sends one request; returns whether the response is correct."""
        question = self.question(self.rng)
        try:
            status, answer = self._ask(question.data())
            self.last = f"{status} {answer[:200]!r}"
            if status != 200:
                self.errors += 1
                return False
            good = question.right(answer)
            self.checked += 1
            self.wrong += not good
            return good
        except (OSError, http.client.HTTPException) as e:
            self.errors += 1
            self.last = repr(e)
            self.close()
        except (ValueError, KeyError, TypeError) as e:
            self.wrong += 1
            self.last += repr(e)
        return False

    def _ask(self, body):
        if not self.connection:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Content-Type": content_type(self.workload)}
        self.connection.request("POST", self.path, body, headers)
        response = self.connection.getresponse()
        return response.status, response.read()


class SideCheck(Check):
    """A `Check` that runs at a low rate beside the load until it is stopped."""

    def __init__(self, server):
        super().__init__(server)
        self.hz = 4 if server.workload in ("w5", "w5raw", "w5typed", *EMBED) else 8
        self.on = True
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def _loop(self):
        while self.on:
            self.one()
            time.sleep(1 / self.hz)

    def stop(self):
        self.on = False
        self.thread.join(12)
        self.close()
        return {"checked": self.checked, "wrong": self.wrong, "check_errors": self.errors}
