"""What is sent, and whether the answers are right."""

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


@functools.cache
def image():
    """The 1 MiB of base64 that w5 sends, and the crc32 of the bytes in it."""
    raw = random.Random(7).randbytes(786432)
    return base64.b64encode(raw).decode(), zlib.crc32(raw)


@functools.cache
def embed_data():
    """The texts of w6 and their reference embeddings."""
    try:
        refs = json.loads((paths.MODEL / "refs.json").read_text())
    except FileNotFoundError:
        raise RuntimeError("the model of w6 is not there: run ./setup --w6") from None
    return json.loads(paths.SENTENCES.read_text()), refs


def path_of(workload):
    return "/fast" if workload == "w4" else "/predict"


def body_file(workload):
    """Writes the bodies that wrk sends in turn, one a line; returns the file's path."""
    if workload == "w5":
        bodies = [{"image": image()[0]}]
    elif workload in EMBED:
        bodies = [{"text": text} for text in embed_data()[0]]
    else:
        bodies = [{"input": 4.0}]
    file = paths.LOGS / f"body-{workload}.txt"
    file.write_text("".join(json.dumps(b) + "\n" for b in bodies))
    return file


class Question(ABC):
    """A request and what its answer must be."""

    body: dict

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
        text, self.crc = image()
        self.body = {"image": text}

    def right(self, answer):
        return json.loads(answer)["output"] == self.crc


class EmbedQuestion(Question):
    def __init__(self, rng):
        texts, refs = embed_data()
        i = rng.randrange(len(texts))
        self.body, self.ref = {"text": texts[i]}, refs[i]

    def right(self, answer):
        got = json.loads(answer)["embedding"]
        return len(got) == 384 and sum(a * b for a, b in zip(got, self.ref, strict=True)) > 0.9999


QUESTIONS = {"w3": StreamQuestion, "w5": ImageQuestion, **dict.fromkeys(EMBED, EmbedQuestion)}


class Check:
    """Asks questions of its own over one connection and checks every answer."""

    def __init__(self, server):
        self.port, self.workload = server.port, server.workload
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
        """Asks one question; True if the answer is right."""
        question = self.question(self.rng)
        try:
            status, answer = self._ask(json.dumps(question.body))
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
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", path_of(self.workload), body, headers)
        response = self.connection.getresponse()
        return response.status, response.read()


class SideCheck(Check):
    """A Check that runs at a low rate beside the load, until it is stopped."""

    def __init__(self, server):
        super().__init__(server)
        self.hz = 4 if server.workload in ("w5", *EMBED) else 8
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
