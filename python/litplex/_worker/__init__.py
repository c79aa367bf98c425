"""The worker process: the Python side of `protocol/PROTOCOL.md`, standard library only.

``__main__`` boots, ``_process`` shakes hands and supervises, ``_load`` brings the user's instance
into the process, ``_hooks`` calls it, ``_loop`` moves requests in and answers out.
"""
