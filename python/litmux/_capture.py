"""Lets a script run up to the call that serves, and takes the servers from that call."""

import sys
import types

_active = False


class Captured(BaseException):
    """Carries what the script wanted to serve; no ``except Exception`` of the script stops it."""

    def __init__(self, servers, options):
        super().__init__("servers were captured")
        self.servers = servers
        self.options = options


def run_script(file, name):
    """Runs a script as the main module, up to the call that serves.

    Args:
        file: The script.
        name: Its ``__name__``: ``__main__``, or another to leave out what it guards.

    Returns:
        The :class:`Captured` call, or None when the script ended without one, and the module.
    """
    global _active
    module = types.ModuleType(name)
    module.__file__ = file
    sys.modules["__main__"] = sys.modules[name] = module
    with open(file, "rb") as source:
        code = compile(source.read(), file, "exec")
    _active = True
    try:
        exec(code, module.__dict__)
    except Captured as captured:
        return captured, module
    finally:
        _active = False
    return None, module


def take(servers, options):
    """Called where serving would start: leaves the script when somebody captures."""
    if _active:
        raise Captured(servers, options)
