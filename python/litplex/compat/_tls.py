"""What uvicorn's arguments for TLS, and the variables that LitServe reads, mean here."""

from __future__ import annotations

import base64
import os
from typing import Any

_FILES = {"ssl_certfile": "tls_cert", "ssl_keyfile": "tls_key", "ssl_ca_certs": "tls_client_ca"}

# Base64 of PEM.
_VARIABLES = {"LIGHTNING_CERT_PEM": "tls_cert", "LIGHTNING_KEY_FILE": "tls_key"}

# Of the module `ssl`, which takes a while to import.
_CERT_NONE, _CERT_REQUIRED = 0, 2
_PROTOCOL_TLS_SERVER = 17

_INSTEAD = {
    "ssl_keyfile_password": "write the key without a password: "
    "`openssl pkey -in KEY.pem -out PLAIN.pem`",
    "ssl_ciphers": "TLS 1.2 and 1.3 are spoken, with the ciphers that are safe; leave it out",
    "ssl_version": "TLS 1.2 and 1.3 are spoken; leave it out",
}


def take(options: dict[str, Any]) -> list[str]:
    """Makes options of litplex of the arguments for TLS, in place; returns what is wrong with them.

    Where the arguments name neither a certificate nor a key, the variables do.
    """
    given = {name: options.pop(name) for name in [*options] if name.startswith("ssl_")}
    if given.get("ssl_version") == _PROTOCOL_TLS_SERVER:
        del given["ssl_version"]
    demand = given.pop("ssl_cert_reqs", _CERT_NONE)
    files = {name: given.pop(name) for name in _FILES if name in given}
    if demand == _CERT_NONE:
        files.pop("ssl_ca_certs", None)  # Nobody is asked for a certificate.
    found = [f"`{name}` is not supported; {_instead(name)}" for name in given if given[name]]
    found += _contradictions(files, demand)
    own = [name for name in options if name.startswith("tls_")]
    if files and own:
        found.append(f"`{next(iter(files))}` and `{own[0]}` are about the same; leave out one")
    if own or found:
        return found
    if "ssl_certfile" in files:
        # The one file holds both where there is no other.
        files.setdefault("ssl_keyfile", files["ssl_certfile"])
    else:
        found += _take_variables(options)
    options.update({_FILES[name]: _path(value) for name, value in files.items()})
    return found


def _instead(name):
    return _INSTEAD.get(name, "name PEM files: `ssl_certfile`, `ssl_keyfile`")


def _contradictions(files, demand):
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        yield "`ssl_keyfile` needs `ssl_certfile`; give both"
    if demand == _CERT_REQUIRED and "ssl_ca_certs" not in files:
        yield "`ssl_cert_reqs` needs `ssl_ca_certs`: who vouches for the clients"
    elif demand not in (_CERT_NONE, _CERT_REQUIRED):
        yield (
            f"`ssl_cert_reqs` must be ssl.CERT_REQUIRED or ssl.CERT_NONE, not {demand!r}: clients "
            f"need a certificate, or are not asked for one"
        )


def _take_variables(options):
    """Takes the certificate and its key from the environment, as they are: no file is written.
    Returns what is wrong with them."""
    values = {name: os.environ.get(name) for name in _VARIABLES}
    if not all(values.values()):
        return []
    found = []
    for name, value in values.items():
        pem = _decoded(value)
        if "-----BEGIN " in pem:
            options[_VARIABLES[name]] = pem
        else:
            found.append(f"{name} must be the base64 of PEM: `base64 -w0 FILE.pem`; or unset it")
    return found


def _decoded(value):
    try:
        return base64.b64decode(value).decode()
    except ValueError:
        return ""


def _path(value):
    return os.fspath(value) if isinstance(value, os.PathLike) else value
