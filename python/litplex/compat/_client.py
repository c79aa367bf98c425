"""Writes a program that sends one request, beside the server's."""

import logging
import os

_logger = logging.getLogger("litserve")

_TEXT = '''\
"""Sends one request to the server; written when it started.

`run(generate_client_file=False)` writes none, and a file that is there is left as it is.
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
    """Writes ``client.py``, unless there is one. Where it cannot, it logs a warning.

    Args:
        directory: Where it is written.
        url: Where the endpoint is reached on this machine.
    """
    file = os.path.join(directory, "client.py")
    try:
        with open(file, "x", encoding="utf-8") as client:
            client.write(_TEXT.format(url=url))
    except FileExistsError:
        return
    except OSError as error:
        _logger.warning("no client was written: %s", error)
