"""The frames of the protocol, to the byte; the Rust side reads the same golden file."""

import json
import socket
from pathlib import Path

import pytest
from litplex._worker.wire import frames

GOLDEN = json.loads((Path(__file__).parents[2] / "protocol/golden.json").read_text("utf-8"))
NAMES = "hello welcome refuse setup ready failed request response chunk end cancel bye "
NAMES += "ping pong measure cost credit metrics waiting sources patch patched hibernate"
KINDS = {name: getattr(frames, name.upper()) for name in NAMES.split()}
FLAGS = {
    "meta": frames.META,
    "more": frames.MORE,
    "request_id": frames.REQUEST_ID,
    "values": frames.VALUES,
}


def reader_of(data):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        reader = frames.FrameReader(ours)
        while reader.receive():
            pass
    return reader


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["name"])
def test_golden_frames_are_written_to_the_byte(golden):
    if "message" in golden:
        kind, id = KINDS[golden["kind"]], golden["id"]
        written = frames.encode_message(kind, golden["message"], id=id)
    else:
        payload = bytes.fromhex(golden["body_hex"])
        if "meta" in golden:
            payload = frames.with_meta(golden["meta"], payload)
        if "request_id" in golden:
            id = golden["request_id"].encode()
            payload = bytes([len(id)]) + id + payload
        flags = sum(FLAGS[flag] for flag in golden["flags"])
        written = frames.encode(
            KINDS[golden["kind"]], payload, flags=flags, status=golden["status"], id=golden["id"]
        )
    assert written.hex() == golden["frame_hex"]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["name"])
def test_golden_frames_are_read(golden):
    frame = reader_of(bytes.fromhex(golden["frame_hex"])).next()
    assert frame is not None
    kind, flags, status, id, payload = frame
    assert (kind, status, id) == (KINDS[golden["kind"]], golden["status"], golden["id"])
    assert flags == sum(FLAGS[flag] for flag in golden["flags"])
    if "request_id" in golden:
        request_id, payload = frames.split_request_id(payload)
        assert request_id == golden["request_id"]
    if "message" in golden:
        assert json.loads(bytes(payload)) == golden["message"]
    elif "meta" in golden:
        meta, body = frames.split_meta(payload)
        assert (meta, bytes(body).hex()) == (golden["meta"], golden["body_hex"])
    else:
        assert bytes(payload).hex() == golden["body_hex"]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["name"])
def test_a_frame_that_is_cut_is_not_a_frame(golden):
    data = bytes.fromhex(golden["frame_hex"])
    for cut in range(len(data)):
        assert reader_of(data[:cut]).next() is None


def test_frames_that_do_not_fit_the_buffer_together_are_read_one_after_the_other():
    sizes = [10, 300_000, 5, 2_000_000, 70_000, 20_000_000, 90_000_000, 7]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader, got = frames.FrameReader(ours), []
        for id, size in enumerate(sizes):
            payload = bytes([id]) * size
            sent = memoryview(frames.encode(frames.REQUEST, payload, id=id))
            while sent:
                sent = sent[theirs.send(sent[:50_000]) :]
                assert reader.receive()
                frame = reader.next()
                if frame is not None:
                    got.append((frame[3], bytes(frame[4]) == payload))
    assert got == [(id, True) for id in range(len(sizes))]


@pytest.mark.parametrize("header", [(1 << 30) + 1, 7, 0], ids=["length", "kind", "flags"])
def test_invalid_frames_are_refused(header):
    kind, flags = (99, 0) if header == 7 else (frames.REQUEST, 128 if header == 0 else 0)
    data = frames.HEADER.pack(header, kind, flags, 0, 0)
    with pytest.raises(frames.FrameError):
        reader_of(data).next()
