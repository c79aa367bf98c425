"""The next batch is read while ``predict`` computes: one at most, and no hook is called for it."""

import socket
import threading
import time

import pytest
from conftest import wait_until
from litplex._http import Context
from litplex._worker.loops.read_ahead import ReadAhead
from litplex._worker.wire import frames
from litplex._worker.wire.stages import Stages, now


def batch(*values, begin=1):
    """Returns the frames of a batch of these bodies, whose ids count up."""
    last = len(values) - 1
    return b"".join(
        frames.encode(frames.REQUEST, value, flags=frames.MORE if at < last else 0, id=begin + at)
        for at, value in enumerate(values)
    )


class Reading:
    """A connection whose requests are read ahead."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.reader = frames.FrameReader(self.ours)
        self.reads = []
        self.ahead = ReadAhead(self.ours, self.reader, self._read)

    def _read(self, flags, payload):
        value = bytes(payload)
        self.reads.append((value, threading.current_thread().name))
        if value == b"bad":
            raise ValueError("bad")
        context = None
        if value == b"measured":
            context = Context()
            context._stages = Stages(now())
        return value, context

    def while_computing(self, during, seconds=1.0):
        """Calls a function in place of ``predict``, which usually takes so many seconds."""
        self.ahead._usual_seconds = seconds
        self.ahead.around(lambda batch, contexts: during())(None, None)

    def names(self):
        return {name for _, name in self.reads}

    def rest(self):
        """Returns the ids of the frames that are there."""
        ids = []
        while (frame := self.ahead.next()) is not None:
            ids.append(frame[3])
        return ids


@pytest.fixture
def reading():
    made = Reading()
    with made.ours, made.theirs:
        yield made


def test_one_batch_is_read_while_predict_computes(reading):
    def during():
        reading.theirs.sendall(batch(b"a", b"b"))
        wait_until(lambda: len(reading.reads) == 2)
        reading.theirs.sendall(batch(b"c", begin=3))
        time.sleep(0.05)

    reading.while_computing(during)
    assert reading.reads == [(b"a", "litplex-read"), (b"b", "litplex-read")]
    kind, flags, _, id, payload = reading.ahead.next()
    assert (kind, flags, id) == (frames.REQUEST, frames.MORE, 1)
    assert reading.ahead.read(flags, payload) == (b"a", None)
    # A batch that was taken is used before the thread takes another one.
    reading.while_computing(lambda: time.sleep(0.05))
    assert len(reading.reads) == 2
    assert reading.rest() == [2]
    reading.while_computing(lambda: wait_until(lambda: len(reading.reads) == 3))
    assert reading.rest() == [3]


def test_nothing_is_read_while_predict_does_not_compute_or_is_fast(reading):
    reading.while_computing(lambda: None)
    reading.theirs.sendall(batch(b"a"))
    time.sleep(0.05)
    reading.while_computing(lambda: time.sleep(0.05), seconds=0.0)
    assert reading.reads == []
    assert reading.reader.receive()
    _, flags, _, _, payload = reading.ahead.next()
    assert reading.ahead.read(flags, payload) == (b"a", None)
    assert reading.names() == {"MainThread"}


def test_a_request_that_cannot_be_read_fails_when_its_turn_comes(reading):
    reading.theirs.sendall(batch(b"bad", b"a"))
    reading.while_computing(lambda: wait_until(lambda: len(reading.reads) == 2))
    _, flags, _, _, payload = reading.ahead.next()
    with pytest.raises(ValueError, match="bad"):
        reading.ahead.read(flags, payload)
    assert reading.rest() == [2]


def test_frames_of_other_kinds_and_errors_are_for_the_loop(reading):
    hold = frames.encode_message(frames.PATCH, {"step": "hold"}, id=7)
    reading.theirs.sendall(batch(b"a", b"b")[:-17] + b"")
    reading.while_computing(lambda: wait_until(lambda: len(reading.reads) == 1))
    reading.theirs.sendall(batch(b"a", b"b")[-17:] + hold + batch(b"c", begin=3))
    reading.while_computing(lambda: wait_until(lambda: len(reading.reads) == 2))
    assert reading.rest()[:2] == [1, 2]
    reading.theirs.sendall(b"\xff" * 16)
    reading.while_computing(lambda: time.sleep(0.05))
    reading.theirs.close()
    reading.while_computing(lambda: time.sleep(0.05))
    with pytest.raises(frames.FrameError):
        reading.rest()


def test_the_wait_for_its_turn_is_no_time_of_a_request(reading):
    reading.theirs.sendall(batch(b"measured"))

    def during():
        wait_until(lambda: reading.reads)
        time.sleep(0.2)

    reading.while_computing(during)
    _, flags, _, _, payload = reading.ahead.next()
    _, context = reading.ahead.read(flags, payload)
    context._stages.end()
    assert context._stages.seconds[0] < 0.2


def test_an_end_of_the_connection_does_not_keep_the_thread_busy(reading):
    reading.theirs.shutdown(socket.SHUT_WR)
    reading.while_computing(lambda: wait_until(lambda: reading.ahead._is_complete))
    assert reading.rest() == []
    assert not reading.reader.receive()


MODEL = """
    import threading
    import time
    from litplex._worker.hooks import hooks

    loads = hooks.loads
    readers = []

    def noted(payload):
        readers.append(threading.current_thread().name)
        return loads(payload)

    hooks.loads = noted

    class API(ls.LitAPI):
        def decode_request(self, x):
            assert threading.current_thread() is threading.main_thread()
            return x

        def predict(self, xs):
            time.sleep(0.02)
            return xs
"""


def test_a_worker_reads_ahead_and_answers_as_before(worker):
    server = worker(
        MODEL.replace("            return xs", "            return [[x, readers[-1]] for x in xs]"),
        {"max_batch_size": 2},
    )
    server.batch(["a", "b"])
    assert server.answers(2)[1][1][0] == "a"
    seen = set()
    for id in range(10, 40, 2):
        body = batch(b'"a"', b'"b"', begin=id) + batch(b'"c"', b'{"', begin=id + 100)
        server.send("data", body)
        answers = server.answers(4)
        assert answers[id + 101][0] == 400
        assert [answers[each][1][0] for each in (id, id + 1, id + 100)] == ["a", "b", "c"]
        seen |= {answers[each][1][1] for each in (id, id + 1, id + 100)}
    assert "litplex-read" in seen
    assert server.end() == 0
