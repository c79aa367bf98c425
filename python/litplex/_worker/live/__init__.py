"""Changes of a model's code while it serves.

``compare`` decides whether a change is safe, ``code`` makes it, and ``patches`` follows the
server's steps. ``_launched/sources.py`` finds and keeps the files.
"""
