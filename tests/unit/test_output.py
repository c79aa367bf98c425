"""The output of a worker, with the marks of its requests."""

import io
import sys
import threading

import pytest
from litplex._launched import request_marks

MARK = "\x1esecret"


class Item:
    def __init__(self, id):
        self.context = None if id is None else type("Context", (), {"_name": id})


@pytest.fixture
def stream(monkeypatch):
    """Returns a stream that marks its lines, and a function that reads its output."""
    written = io.BytesIO()
    marked = request_marks.MarkedStream(io.TextIOWrapper(written, "utf-8"))
    monkeypatch.setattr(request_marks, "_begin", MARK)
    yield marked, lambda: written.getvalue().decode()
    request_marks.set_current_requests(())


def test_each_line_of_a_request_begins_with_its_mark(stream):
    marked, written = stream
    print("before", file=marked)
    request_marks.set_current_requests([Item("one")])
    print("ä", "b", file=marked)
    print("two\n\nlines", file=marked)
    request_marks.set_current_requests([Item(None)])
    print("after", file=marked)
    mark = f"{MARK}one\x1f"
    assert written() == f"before\n{mark}ä b\n{mark}two\n{mark}\n{mark}lines\nafter\n"


def test_a_line_that_has_not_ended_goes_out_when_it_must(stream):
    marked, written = stream
    request_marks.set_current_requests([Item("one")])
    assert marked.write("half") == 4
    assert written() == ""
    marked.flush()
    assert written() == f"{MARK}one\x1fhalf"
    marked.write("of one")
    request_marks.set_current_requests([Item("two")])
    marked.write("x" * 10_000)
    assert written() == f"{MARK}one\x1fhalf{MARK}one\x1fof one{MARK}two\x1f{'x' * 10_000}"


def test_a_mark_names_all_requests_of_a_batch(stream):
    marked, written = stream
    names = [str(number) for number in range(200)]
    request_marks.set_current_requests([Item(name) for name in [*names, None, ""]])
    print("batch", file=marked)
    assert written() == f"{MARK}{' '.join(names)}\x1fbatch\n"


def test_text_that_cannot_wait_is_written_at_once(stream):
    marked, written = stream
    print("loading", end="", file=marked)
    assert written() == "loading"
    request_marks.set_current_requests([Item("one")])
    print("\r 7 %", end="", file=marked)
    assert written() == f"loading{MARK}one\x1f\r 7 %"


def test_lines_of_threads_are_whole(stream):
    marked, written = stream
    barrier = threading.Barrier(8)

    def say(name):
        request_marks.set_current_requests([Item(name)])
        barrier.wait()
        for _ in range(500):
            print(name, "a", "b", file=marked)

    threads = [threading.Thread(target=say, args=[str(number)]) for number in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    lines = written().split("\n")[:-1]
    expected = [f"{MARK}{number}\x1f{number} a b" for number in range(8) for _ in range(500)]
    assert sorted(lines) == sorted(expected)


def test_a_value_that_is_not_text_is_refused(stream):
    with pytest.raises(TypeError):
        stream[0].write(b"bytes")
