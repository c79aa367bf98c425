"""Writes a program that sends one request to the server."""

import logging
import os

_logger = logging.getLogger("litserve")

_TEXT = '''\
"""Sends one request to the server; written when it started.

`run(generate_client_file=False)` writes no such file. An existing file is not changed.
"""

import json
import urllib.error
import urllib.request

URL = {url!r}
BODY = {{"input": 4.0}}

request = urllib.request.Request(
    URL, data=json.dumps(BODY).encode(), headers={{"Content-Type": "application/json"}}
)
try:
    response = urllib.request.urlopen(request)
except urllib.error.HTTPError as error:
    response = error
with response:
    print(f"Status: {{response.status}}\\nResponse:\\n{{response.read().decode()}}")
'''


def write_client(directory: str, url: str) -> None:
    """Writes ``client.py``, unless it exists. A failure is logged as a warning.

    Args:
        directory: The directory of the file.
        url: The address of the endpoint on this machine.
    """
    file = os.path.join(directory, "client.py")
    try:
        with open(file, "x", encoding="utf-8") as client:
            client.write(_TEXT.format(url=url))
    except FileExistsError:
        return
    except OSError as error:
        _logger.warning("cannot write client.py: %s", error)
