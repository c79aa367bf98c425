"""The main loops: they take requests from the data connection, run hooks and send responses.

A worker runs one of them: ``loop`` for plain hooks, ``async_loop`` for ``async`` hooks,
``continuous`` for models that requests join and leave between steps.
"""
