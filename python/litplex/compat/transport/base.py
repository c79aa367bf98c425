"""The module ``litserve.transport.base``."""

from litplex.compat._missing import unavailable_names
from litplex.compat.transport import SOCKETS

__getattr__ = unavailable_names(__name__, {"MessageTransport": SOCKETS})
