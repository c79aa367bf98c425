"""The app host: what a program supplies of the HTTP layer in Python, in a process of its own.

It needs fastapi and uvicorn. ``_manifest`` alone needs neither: the face asks it which programs
have an app host, and what that is told.
"""
