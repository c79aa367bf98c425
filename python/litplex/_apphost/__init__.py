"""The app host: the parts of the HTTP layer that a program has in Python, in one process.

It needs fastapi and uvicorn. Only ``_manifest`` needs neither: it decides which programs have an
app host.
"""
