"""The source files of a model, and changes of its code while it serves.

``sources`` finds and keeps the files, ``compare`` decides whether a change is safe, ``code`` makes
it, and ``patches`` follows the server's steps.
"""
