"""What ``import litserve.transport.base`` finds."""

from litmux.compat._missing import unavailable_names
from litmux.compat.transport import SOCKETS

__getattr__ = unavailable_names(__name__, {"MessageTransport": SOCKETS})
