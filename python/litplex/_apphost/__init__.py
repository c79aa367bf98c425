"""The app host: what a program supplies of the HTTP layer in Python, in a process of its own.

It needs fastapi and uvicorn, which programs written for LitServe have; nothing else of litplex
imports it.
"""
