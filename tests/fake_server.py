"""Runs a real worker process and speaks the worker protocol with it, as the server would."""

import contextlib
import json
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from litplex._worker.wire import frames

WORKER = Path(frames.__file__).parents[1]
WAIT = 15.0  # Far more than anything takes on a slow machine.
SILENCE = 0.15

# What models say goes to stderr; they wait at gates that the test opens.
PRELUDE = """
import asyncio, os, sys, time
import litplex as ls

def say(text):
    print(text, file=sys.stderr, flush=True)

def wait_for(is_there):
    ends = time.monotonic() + 15
    while not is_there():
        if time.monotonic() > ends:
            raise TimeoutError
        time.sleep(0.002)

def gate():
    wait_for(lambda: os.path.exists("gate"))
"""


class FakeServer:
    """One worker, and both connections to it.

    Args:
        directory: Where the model's file is written, and its working directory.
        model: The text of a class ``API``.
        args: Constructor arguments of the class.
        ready: Whether to wait until its setup has ended.
        order: What its order holds besides, such as ``threads``.
        **setup: What the `setup` message holds besides the device; with `calls`, the worker may
            dial for calls.
    """

    def __init__(self, directory, model, args=None, *, ready=True, order=None, **setup):
        self.directory = directory
        (directory / "model.py").write_text(PRELUDE + textwrap.dedent(model), encoding="utf-8")
        self._errors = directory / "stderr"
        order = {
            **(order or {}),
            "socket": str(directory / "socket"),
            "token": "s3cret",
            "worker": "/test#0",
            "load": {
                "kind": "reference",
                "name": "model.py:API",
                "args": args or {},
                "directory": str(directory),
            },
        }
        self.socks = {}
        self._readers = {}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.ExitStack() as until_ready:
            listener = self.listener
            if not setup.get("calls"):
                until_ready.callback(listener.close)
            listener.bind(order["socket"])
            listener.listen(2)
            listener.settimeout(WAIT)
            with self._errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    [sys.executable, str(WORKER)],
                    cwd=directory,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
            assert self.process.stdin is not None
            with self.process.stdin as stdin:
                stdin.write(json.dumps(order).encode())
            try:
                for role in ("data", "control"):
                    self.welcome(role)
                self.send("data", frames.encode_message(frames.SETUP, {"device": "cpu", **setup}))
                if ready:
                    self.ready()
            except BaseException:
                self.close()
                raise

    def welcome(self, role):
        """Takes a connection of the worker with this role."""
        sock, _ = self.listener.accept()
        sock.settimeout(WAIT)
        self.socks[role], self._readers[role] = sock, frames.FrameReader(sock)
        hello = self._message(frames.HELLO, role=role)
        assert (hello["role"], hello["token"]) == (role, "s3cret")
        welcome = {"protocol": hello["protocol"]}
        self.send(role, frames.encode_message(frames.WELCOME, welcome))

    def ready(self):
        """Takes the message that the worker is ready, or has failed."""
        self.traits = self._message(frames.READY, frames.FAILED)

    def _message(self, *kinds, role="data"):
        kind, message = self._readers[role].message(*kinds)
        assert kind is not None, f"the worker ended: {self.errors}"
        return message

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def hang_up(self):
        """Ends the connections without a goodbye."""
        self.listener.close()
        for sock in self.socks.values():
            sock.close()

    def close(self):
        """Leaves no process behind."""
        self.hang_up()
        self.process.kill()
        self.process.wait(WAIT)

    @property
    def errors(self):
        """The output of the worker on stderr so far."""
        return self._errors.read_text("utf-8")

    def send(self, role, data):
        self.socks[role].sendall(data)

    def request(self, id, value=None, *, more=False):
        """Sends a JSON request; with a context where the worker wants one."""
        payload, flags = json.dumps(value).encode(), frames.MORE if more else 0
        if self.traits["context"]:
            meta = {"content": "json", "context": {"method": "POST", "remaining_ms": 60_000}}
            payload, flags = frames.with_meta(meta, payload), flags | frames.META
        self.send("data", frames.encode(frames.REQUEST, payload, flags=flags, id=id))

    def batch(self, values):
        """Sends a batch with ids from 1."""
        for id, value in enumerate(values, 1):
            self.request(id, value, more=id < len(values))

    def cancel(self, *ids):
        """Returns when the worker has noted it."""
        for id in ids:
            self.send("control", frames.encode(frames.CANCEL, id=id))
        self.ping()

    def credit(self, id, count):
        self.send("control", frames.encode(frames.CREDIT, frames.LENGTH.pack(count), id=id))

    def ping(self, id=7):
        self.send("control", frames.encode(frames.PING, id=id))
        assert self.receive("control") == (frames.PONG, 0, 0, id, b"")

    def measure(self, value):
        """Returns the status and payload of a cost."""
        payload = json.dumps(value).encode()
        self.send("control", frames.encode(frames.MEASURE, payload, id=3))
        kind, _, status, id, payload = self.receive("control")
        assert (kind, id) == (frames.COST, 3)
        return status, payload

    def patch(self, step, id=9, **message):
        """Sends a step of a change of the code."""
        role = "data" if step == "hold" else "control"
        frame = frames.encode_message(frames.PATCH, {"step": step, **message}, id=id)
        self.send(role, frame)

    def patched(self, id=9):
        """Returns the next answer to a step of a change of the code. Passes over reports of source
        files before it."""
        kind = frames.SOURCES
        while kind == frames.SOURCES:
            kind, _, _, got, payload = self.receive("control")
        assert (kind, got) == (frames.PATCHED, id), self.errors
        return json.loads(payload)

    def metrics(self):
        """Returns the next metrics of the model that the worker reports; None at its end."""
        reader = self._readers["control"]
        frame = reader.next()
        while frame is None:
            if not reader.receive():
                return None
            frame = reader.next()
        assert frame[0] == frames.METRICS
        return json.loads(bytes(frame[4]))["metrics"]

    def open_gate(self):
        (self.directory / "gate").touch()

    def wait_for(self, said):
        """Waits until a model has said it."""
        ends = time.monotonic() + WAIT
        while said not in self.errors:
            assert time.monotonic() < ends, f"{said!r} is not in:\n{self.errors}"
            time.sleep(0.005)

    def receive(self, role="data"):
        """Returns the next frame."""
        reader = self._readers[role]
        frame = reader.next()
        while frame is None:
            assert reader.receive(), f"the worker ended: {self.errors}"
            frame = reader.next()
        return (*frame[:4], bytes(frame[4]))

    def answers(self, count):
        """Returns the status and value of the next answers, by id."""
        got = {}
        for _ in range(count):
            kind, flags, status, id, payload = self.receive()
            assert (kind, flags) == (frames.RESPONSE, 0)
            assert id not in got
            got[id] = (status, json.loads(payload))
        return got

    def next_call(self, *, raw=False):
        """Returns the id, the metadata of its call, and the value of the next call of a hook."""
        if "calls" not in self.socks:
            self.welcome("calls")
        kind, flags, _, id, payload = self.receive("calls")
        while kind == frames.WAITING:  # A hook that read a stream before.
            kind, flags, _, id, payload = self.receive("calls")
        assert (kind, flags) == (frames.REQUEST, frames.META | frames.VALUES)
        meta, body = frames.split_meta(payload)
        if raw:
            return id, meta, bytes(body)
        assert meta["content"] == "json"
        return id, meta["call"], json.loads(bytes(body))

    def next_calls(self, count):
        """Returns the ids of the next calls of hooks by their values."""
        return {json.dumps(value): id for id, _, value in (self.next_call() for _ in range(count))}

    def next_waiting(self, taken=0):
        """Returns the id of a call for which its hook now waits, having taken so many chunks."""
        kind, flags, status, id, payload = self.receive("calls")
        assert (kind, flags, status) == (frames.WAITING, 0, 0)
        assert frames.LENGTH.unpack(payload) == (taken,)
        return id

    def answer_call(self, id, value=None, status=200, *, meta=None, body=None):
        """Answers a call of a hook with a value, or with metadata and a body."""
        payload, flags = json.dumps(value).encode() if body is None else body, 0
        if meta is not None:
            payload, flags = frames.with_meta(meta, payload), frames.META
        frame = frames.encode(frames.RESPONSE, payload, flags=flags, status=status, id=id)
        self.send("calls", frame)

    def send_items(self, id, *items, kind=frames.JSON_ITEMS):
        """Sends items of the stream that answers a call."""
        datas = [json.dumps(item).encode() if kind == 0 else item for item in items]
        packed = b"".join(frames.LENGTH.pack(len(data)) + data for data in datas)
        self.send("calls", frames.encode(frames.CHUNK, packed, status=kind, id=id))

    def end_call(self, id, status=0, detail=b""):
        """Ends the stream that answers a call."""
        self.send("calls", frames.encode(frames.END, detail, status=status, id=id))

    def items(self, count=None, *, ends=1):
        """Returns the items of streams by id, until so many items came or streams ended; the
        status of the end, where one came, is the last."""
        got: dict[int, list] = {}
        while ends and (count is None or sum(map(len, got.values())) < count):
            kind, _, status, id, payload = self.receive()
            if kind == frames.END:
                got.setdefault(id, []).append(status)
                ends -= 1
                continue
            assert kind == frames.CHUNK
            while payload:
                size = frames.LENGTH.unpack_from(payload)[0]
                item, payload = payload[4 : 4 + size], payload[4 + size :]
                text = item.decode()
                got.setdefault(id, []).append(text if status else json.loads(text))
        return got

    def is_silent(self):
        """Returns whether the worker sends nothing for a while."""
        if self._readers["data"].has_more():
            return False
        sock = self.socks["data"]
        sock.settimeout(SILENCE)
        try:
            return not sock.recv(1, socket.MSG_PEEK)
        except socket.timeout:
            return True
        finally:
            sock.settimeout(WAIT)

    def end(self):
        """Says goodbye; returns the exit status."""
        self.send("control", frames.encode(frames.BYE))
        return self.process.wait(WAIT)
