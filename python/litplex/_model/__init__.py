"""Descriptions of a model for all processes: the program, the worker and the app host.

``annotations`` reads the annotations of hooks, ``schema`` describes requests, responses and tools,
``chat`` and ``embeddings`` are the requests of OpenAI's dialects as pydantic models.
"""
