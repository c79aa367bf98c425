"""Follows the server's steps of a change of the code, while requests are computed."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from litplex._launched.tracebacks import formatted
from litplex._worker.hooks.hooks import source_of
from litplex._worker.live.code import Plan
from litplex._worker.live.compare import NotSafe
from litplex._worker.wire import frames
from litplex._worker.wire.encode import name_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from litplex._launched.sources import Sources

# The time after which a worker that holds its requests goes on without an answer of the server.
_PATIENCE = 10.0


class Patches:
    """The changes of a model's code.

    The control thread prepares a change, and says how it ends. The loop stops between requests and
    makes the change itself, so that none is computed by both codes.

    Args:
        api: The model.
        sources: The files of the program, with their texts as they were loaded. Changed with the
            code.
        send: Sends a frame on the control connection, from any thread.
    """

    def __init__(self, api: Any, sources: Sources, send: Callable[[bytes], None]) -> None:
        self._api = api
        self._sources = sources
        self._send = send
        self._changed: dict[str, bytes] = {}
        self._plan: Plan | None = None
        self._committed: int | None = None
        self._decided = threading.Event()
        self._until = 0.0

    def follow(self, id: int, message: dict[str, Any]) -> None:
        """Takes a step, on the control thread."""
        step = message.get("step")
        if step == "prepare":
            self._answer(id, self._prepare(message.get("files", ())))
        elif step == "commit":
            self._committed = id
            self._decided.set()
        elif step == "abort":
            self._plan = None
            self._decided.set()
            self._answer(id, {})
        else:
            raise frames.FrameError(f"a patch has no step {step!r}")

    def _prepare(self, files: Any) -> dict[str, Any]:
        """Checks a change, and returns the answer."""
        self._plan, self._committed = None, None
        self._decided.clear()
        after = {file["path"]: file["text"].encode() for file in files}
        texts = self._sources.texts
        self._changed = {path: text for path, text in after.items() if texts.get(path) != text}
        if not self._changed:
            return {"unchanged": True}
        try:
            self._plan = Plan(texts, self._changed)
        except NotSafe as reason:
            return {"reason": str(reason)}
        except SyntaxError as error:
            return {"reason": f"SyntaxError: {error}", "traceback": formatted(error)}
        except ValueError as error:
            # Such as a text with null bytes.
            return {"reason": str(error), "traceback": formatted(error)}
        except RecursionError:
            return {"reason": "the code is nested too deeply to be compared"}
        return {}

    def is_held(self) -> bool:
        """Returns whether the server still waits for the loop to stop."""
        return self._plan is not None and not self._decided.is_set()

    def stopped(self, id: int) -> None:
        """Tells the server that the loop computes nothing."""
        self._until = time.monotonic() + _PATIENCE
        self._answer(id, {})

    def is_waited_for(self) -> bool:
        """Returns whether the loop, which has stopped, waits for the server to decide."""
        return not self._decided.is_set() and time.monotonic() < self._until

    def finish(self, timeout: float = _PATIENCE) -> None:
        """Waits until the server has decided, and makes the change if it is to be made. Called by
        the loop, which computes nothing meanwhile."""
        self._decided.wait(timeout)
        plan, id = self._plan, self._committed
        self._plan = None
        if plan is None or id is None:
            return
        plan.apply()
        for path, text in self._changed.items():
            self._sources.note(path, text)
        name_source(source_of(self._api))
        self._answer(id, {})

    def end(self) -> None:
        """Lets the loop go on: the server is gone."""
        self._plan = None
        self._decided.set()

    def _answer(self, id: int, answer: dict[str, Any]) -> None:
        self._send(frames.encode_message(frames.PATCHED, answer, id=id))
