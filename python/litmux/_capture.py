"""Lets a script run up to the call that serves, and takes the servers from that call."""

from contextlib import contextmanager

_active = False


class Captured(BaseException):
    """Carries what the script wanted to serve; no ``except Exception`` of the script stops it."""

    def __init__(self, servers, options):
        super().__init__("servers were captured")
        self.servers = servers
        self.options = options


@contextmanager
def capturing():
    """Within it, serving raises :class:`Captured` instead."""
    global _active
    _active = True
    try:
        yield
    finally:
        _active = False


def take(servers, options):
    """Called where serving would start: leaves the script when somebody captures."""
    if _active:
        raise Captured(servers, options)
