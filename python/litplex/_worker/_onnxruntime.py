"""Keeps the threads of ONNX Runtime from spinning, where other workers use the same cores.

By default they spin while they wait, and take the cores from the workers that compute. ONNX Runtime
reads no environment variable, and libraries such as RapidOCR make sessions without this option.
"""

from __future__ import annotations

import functools
from typing import Any

from litplex._worker._after_import import after_import

_SPINNING = ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning")


def keep_from_spinning(cores: int) -> None:
    """Changes the defaults of each session that is made from now on: its threads sleep while they
    wait, and are as many as there are cores. What its author sets stays."""
    after_import("onnxruntime", lambda module: _set_defaults(module, cores))


def _set_defaults(onnxruntime: Any, cores: int) -> None:
    session = onnxruntime.InferenceSession
    create = session.__init__

    @functools.wraps(create)
    def create_with_defaults(
        self: Any, path_or_bytes: Any, sess_options: Any = None, *args: Any, **options: Any
    ) -> None:
        if sess_options is None:
            sess_options = onnxruntime.SessionOptions()
        _complete(sess_options, cores)
        create(self, path_or_bytes, sess_options, *args, **options)

    session.__init__ = create_with_defaults


def _complete(options: Any, cores: int) -> None:
    if options.intra_op_num_threads == 0:
        # Without a number, ONNX Runtime also binds each thread to a core.
        options.intra_op_num_threads = cores
    for name in _SPINNING:
        try:
            options.get_session_config_entry(name)
        except RuntimeError:
            options.add_session_config_entry(name, "0")
