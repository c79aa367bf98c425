"""Responses are sent together, and none waits for the computation of another."""

import socket
import threading
import time

import pytest
from litplex._worker.loops.outbox import Outbox
from litplex._worker.wire import frames

WAIT = 5.0  # Seconds: long enough for any machine; no test depends on the value.


@pytest.fixture
def wire():
    ours, theirs = socket.socketpair()
    theirs.settimeout(WAIT)
    with ours, theirs:
        yield Outbox(ours), theirs


def receive(sock, count):
    data = b""
    while len(data) < count:
        data += sock.recv(1 << 16)
    return data


def warm_up(outbox, sock):
    """Lets the outbox see a model that is fast."""
    for _ in range(60):
        outbox.add(b".", hold=True)
    outbox.flush()
    receive(sock, 60)


def test_a_slow_models_answer_is_sent_at_once(wire):
    outbox, sock = wire
    time.sleep(0.01)
    outbox.add(b"answer", hold=True)
    assert receive(sock, 6) == b"answer"


def test_an_answer_held_when_the_model_turns_slow_is_sent_by_the_helper(wire):
    outbox, sock = wire
    warm_up(outbox, sock)
    outbox.add(b"held", hold=True)
    # The main thread computes from here on and never looks at its outbox again.
    assert receive(sock, 4) == b"held"


def test_the_helper_wakes_up_again_after_it_slept(wire):
    outbox, sock = wire
    for _ in range(3):
        warm_up(outbox, sock)
        outbox.add(b"held", hold=True)
        assert receive(sock, 4) == b"held"
        time.sleep(0.05)


def test_an_answer_held_after_the_model_was_fast_for_long_is_sent_by_the_helper(wire):
    outbox, sock = wire
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        warm_up(outbox, sock)
    for _ in range(2):
        warm_up(outbox, sock)
        outbox.add(b"held", hold=True)
        assert receive(sock, 4) == b"held"


def test_items_of_one_stream_are_packed_and_keep_their_order(wire):
    outbox, sock = wire
    outbox.put((7, frames.TEXT_ITEMS, b"a"))
    outbox.put((7, frames.TEXT_ITEMS, b"bc"))
    outbox.put((7, frames.JSON_ITEMS, b"1"))
    outbox.put(frames.encode(frames.END, id=7))
    outbox.flush()
    expected = (
        frames.encode(frames.CHUNK, b"\1\0\0\0a\2\0\0\0bc", status=frames.TEXT_ITEMS, id=7)
        + frames.encode(frames.CHUNK, b"\1\0\0\x001", status=frames.JSON_ITEMS, id=7)
        + frames.encode(frames.END, id=7)
    )
    assert receive(sock, len(expected)) == expected


def test_large_answers_arrive_whole(wire):
    outbox, sock = wire
    large = bytes(1_000_000)
    received = []
    thread = threading.Thread(target=lambda: received.append(receive(sock, len(large) + 2)))
    thread.start()
    outbox.put(b"a")
    outbox.put(large)
    outbox.put(b"b")
    outbox.flush()
    thread.join(WAIT)
    assert received == [b"a" + large + b"b"]
