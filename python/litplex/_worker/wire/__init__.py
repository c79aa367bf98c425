"""The bytes of the data connection: frames, request bodies, and the encoding of responses.

It knows no hook and no loop.
"""
