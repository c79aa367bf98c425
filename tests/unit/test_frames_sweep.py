"""Golden frames that are cut, doubled and changed at every place: frames or FrameError."""

import json
import socket
from pathlib import Path

import pytest
from litplex._worker.wire import frames

GOLDEN = json.loads((Path(__file__).parents[2] / "protocol/golden.json").read_text("utf-8"))
FRAMES = [bytes.fromhex(golden["frame_hex"]) for golden in GOLDEN]
by_golden = pytest.mark.parametrize("data", FRAMES, ids=[golden["name"] for golden in GOLDEN])


def read_all(data):
    """Returns the frames in these bytes, as a worker reads them, and the error that ended them."""
    ours, theirs = socket.socketpair()
    got: list[tuple] = []
    with ours, theirs:
        ours.settimeout(10)
        theirs.sendall(data)
        theirs.close()
        reader = frames.FrameReader(ours)
        try:
            while True:
                frame = reader.next()
                if frame is None:
                    if not reader.receive():
                        return got, None
                    continue
                kind, flags, _, id, payload = frame
                if flags & frames.REQUEST_ID:
                    payload = memoryview(frames.split_request_id(payload)[1])
                if flags & frames.META:
                    frames.split_meta(payload)
                got.append((kind, id, bytes(payload)))
        except frames.FrameError as error:
            return got, error


def flips(data, at):
    """Yields the bytes with a bit of this one changed: each of the header, one of the rest."""
    for bit in range(8) if at < frames.HEADER.size else [at % 8]:
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        yield bytes(flipped)


@by_golden
def test_a_frame_that_is_cut_is_never_one(data):
    (whole,), _ = read_all(data)
    for cut in range(len(data)):
        assert read_all(data[:cut]) == ([], None)
        assert read_all(data + data[:cut]) == ([whole], None)


@by_golden
def test_doubled_or_changed_bytes_are_a_frame_or_an_error(data):
    for at in range(len(data)):
        # The rest comes again from here, and a byte does.
        for changed in (data + data[at:], data[: at + 1] + data[at:]):
            read_all(changed)
        for flipped in flips(data, at):
            got, error = read_all(flipped + data)
            # Only a length that promises more than comes leaves nothing at all.
            assert at < 4 or got or error, f"byte {at}: {flipped[at]}"


@pytest.mark.parametrize("data", [data for data in FRAMES if data[4] <= frames.FAILED])
def test_messages_that_are_changed_are_messages_or_errors(data):
    for at in range(len(data)):
        for flipped in flips(data, at):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.settimeout(10)
                theirs.sendall(flipped)
                theirs.close()
                try:
                    frames.FrameReader(ours).message(data[4])
                except frames.FrameError:
                    continue
