"""Translates uvicorn's arguments for TLS, and the variables that LitServe reads."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Any

_FILES = {"ssl_certfile": "tls_cert", "ssl_keyfile": "tls_key", "ssl_ca_certs": "tls_client_ca"}

# Base64 of PEM.
_VARIABLES = {"LIGHTNING_CERT_PEM": "tls_cert", "LIGHTNING_KEY_FILE": "tls_key"}

# Constants of the module `ssl`, whose import is slow.
_CERT_NONE, _CERT_REQUIRED = 0, 2
_PROTOCOL_TLS_SERVER = 17

_REMEDIES = {
    "ssl_keyfile_password": "write the key without a password: "
    "`openssl pkey -in KEY.pem -out PLAIN.pem`",
    "ssl_ciphers": "the server has TLS 1.2 and 1.3 with safe ciphers; leave it out",
    "ssl_version": "the server has TLS 1.2 and 1.3; leave it out",
}


def take(options: dict[str, Any]) -> list[str]:
    """Replaces the arguments for TLS by options of litplex, in place; returns the errors in them.

    The variables count if the arguments name neither a certificate nor a key.
    """
    given = {name: options.pop(name) for name in [*options] if name.startswith("ssl_")}
    if given.get("ssl_version") == _PROTOCOL_TLS_SERVER:
        del given["ssl_version"]
    demand = given.pop("ssl_cert_reqs", _CERT_NONE)
    files = {name: given.pop(name) for name in _FILES if name in given}
    if demand == _CERT_NONE:
        files.pop("ssl_ca_certs", None)  # No client needs a certificate.
    found = [f"`{name}` is not supported; {_remedy(name)}" for name in given if given[name]]
    found += _contradictions(files, demand)
    own = [name for name in options if name.startswith("tls_")]
    if files and own:
        found.append(f"`{next(iter(files))}` and `{own[0]}` set the same; leave out one")
    if own or found:
        return found
    if "ssl_certfile" in files:
        # Without a file for the key, the file of the certificate has both.
        files.setdefault("ssl_keyfile", files["ssl_certfile"])
    else:
        found += _take_variables(options)
    options.update({_FILES[name]: _path(value) for name, value in files.items()})
    return found


def _remedy(name: str) -> str:
    return _REMEDIES.get(name, "name PEM files: `ssl_certfile`, `ssl_keyfile`")


def _contradictions(files: dict[str, Any], demand: Any) -> Iterator[str]:
    if "ssl_keyfile" in files and "ssl_certfile" not in files:
        yield "`ssl_keyfile` needs `ssl_certfile`; give both"
    if demand == _CERT_REQUIRED and "ssl_ca_certs" not in files:
        yield "`ssl_cert_reqs` needs `ssl_ca_certs`: the authorities of client certificates"
    elif demand not in (_CERT_NONE, _CERT_REQUIRED):
        yield (
            f"`ssl_cert_reqs` must be ssl.CERT_REQUIRED or ssl.CERT_NONE, not {demand!r}: every "
            f"client needs a certificate, or none does"
        )


def _take_variables(options: dict[str, Any]) -> list[str]:
    """Takes the certificate and its key from the environment, without a file; returns the errors
    in them."""
    values = {name: os.environ.get(name) for name in _VARIABLES}
    if not all(values.values()):
        return []
    found: list[str] = []
    for name, value in values.items():
        pem = _decoded(value or "")
        if "-----BEGIN " in pem:
            options[_VARIABLES[name]] = pem
        else:
            found.append(f"{name} must be the base64 of PEM: `base64 -w0 FILE.pem`; or unset it")
    return found


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except ValueError:
        return ""


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
