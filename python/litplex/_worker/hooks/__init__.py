"""Calls to a model's hooks: plain or ``async``, typed by annotations, with the spec of a dialect.

It opens no socket and holds no queue: the loops decide when a hook runs.
"""
