"""The worker process from its order to its exit."""

import contextlib
import gc
import json
import os
import platform
import signal
import socket
import sys
import threading
import traceback

from litmux._worker import _frames as frames
from litmux._worker._hooks import Hooks, check_hooks
from litmux._worker._load import load
from litmux._worker._loop import Loop


def main():
    """Serves until the server says that it is enough. Returns the exit status."""
    # Ctrl-C in a terminal is for the server, which then lets its workers finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A service manager sends SIGTERM to everybody; requests in flight must outlive it.
    signal.signal(signal.SIGTERM, _outlive(os.getpid()))
    order = _read_order()
    data, reader = _dial(order, "data")
    control, control_reader = _dial(order, "control")
    kind, setup = reader.message(frames.SETUP)
    if kind is None:
        return 0
    try:
        api, hooks = _set_up(order["load"], setup)
    except _Failed as failed:
        data.sendall(frames.encode_message(frames.FAILED, failed.message))
        # The server ends this process, one way or the other, once it has read the reason.
        with contextlib.suppress(OSError):
            reader.receive()
        return 1
    loop = Loop(data, reader, hooks)
    _spawn(_follow_control, control_reader, data, loop)
    # The model's objects live as long as the process: let no collection walk them again.
    gc.collect()
    gc.freeze()
    data.sendall(frames.encode_message(frames.READY, hooks.traits()))
    loop.run()
    _tear_down(api)
    control.close()
    return 0


def _outlive(worker):
    """Returns a handler that ignores a signal here, and not in processes that are forked off."""

    def handle(number, _):
        if os.getpid() != worker:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return handle


def _read_order():
    """Reads what the server wrote to our standard input, and leaves user code an empty one."""
    order = json.load(sys.stdin.buffer)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return order


def _dial(order, role):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(order["socket"])
    hello = {
        "protocol": frames.PROTOCOL,
        "token": order["token"],
        "role": role,
        "pid": os.getpid(),
        "python": platform.python_version(),
    }
    sock.sendall(frames.encode_message(frames.HELLO, hello))
    reader = frames.FrameReader(sock)
    kind, message = reader.message(frames.WELCOME, frames.REFUSE)
    if kind != frames.WELCOME:
        reason = message["reason"] if message else "the server closed the connection"
        raise SystemExit(f"the server refused this worker: {reason}")
    return sock, reader


class _Failed(Exception):
    def __init__(self, reason, error=None):
        super().__init__(reason)
        self.message = {"reason": reason}
        if error is not None:
            self.message["traceback"] = _user_traceback(error)


def _set_up(source, setup):
    try:
        api = load(source)
    except Exception as error:  # noqa: BLE001  (whatever the user's module raises)
        raise _Failed(f"loading it raised {_summary(error)}", error) from None
    _check(api)
    for name in ("max_batch_size", "batch_timeout", "stream"):
        if setup.get(name) is not None:
            setattr(api, name, setup[name])
    try:
        api.device = setup["device"]
        api.setup(setup["device"])
        is_healthy = api.health()
    except Exception as error:  # noqa: BLE001
        raise _Failed(f"setup raised {_summary(error)}", error) from None
    if not is_healthy:
        raise _Failed("`health` returned a false value after `setup`")
    # Again, because setup may have changed them.
    _check(api)
    return api, Hooks(api)


def _check(api):
    try:
        check_hooks(api)
    except ValueError as error:
        raise _Failed(str(error)) from None


def _summary(error):
    return traceback.format_exception_only(type(error), error)[-1].strip()


def _user_traceback(error):
    """Formats a traceback without the frames of this package, which say nothing to its reader."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    trace = error.__traceback__
    while trace is not None and _is_ours(trace, package):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def _is_ours(trace, package):
    filename = trace.tb_frame.f_code.co_filename
    return filename.startswith((package, "<frozen"))


def _spawn(target, *args):
    threading.Thread(target=target, args=args, name="litmux-control", daemon=True).start()


def _follow_control(reader, data, loop):
    """Sees what must be seen while a model runs. A lost server is handled like a goodbye."""
    try:
        while True:
            frame = reader.next()
            while frame is not None:
                kind, _, _, id, _ = frame
                if kind == frames.CANCEL:
                    loop.cancel(id)
                frame = reader.next() if kind != frames.BYE else None
                if kind == frames.BYE:
                    return
            if not reader.receive():
                return
    except (OSError, frames.FrameError):
        pass
    finally:
        # The loop ends once it has answered what had arrived.
        data.shutdown(socket.SHUT_RD)


def _tear_down(api):
    try:
        api.teardown()
    except Exception:  # noqa: BLE001
        traceback.print_exc()
