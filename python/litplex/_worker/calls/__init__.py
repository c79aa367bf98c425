"""Calls of hooks to other endpoints, over a connection of their own, on which this worker sends the
requests and the server the responses. ``provider.py`` dials; ``link.py`` has the connection."""
