"""The worker process: the Python side of `protocol/PROTOCOL.md`, standard library only.

``__main__`` boots, ``_process`` shakes hands and supervises, ``_load`` brings the user's instance
into the process, ``_check`` inspects a model without ``setup``. The folders: ``wire`` reads
requests and encodes responses, ``hooks`` calls the model, ``loops`` moves requests in and responses
out, ``control`` follows the control connection.
"""
