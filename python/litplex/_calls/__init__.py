"""Calls of hooks to other endpoints of the same server, as model authors write them.

``endpoint.py`` has the handles; in a worker, ``_worker/calls/`` makes the calls.
"""
