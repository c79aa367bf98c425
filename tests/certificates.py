"""Makes certificates with the `openssl` command."""

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

_OF_AUTHORITY = """
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
"""

_OF_LEAF = """
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost,IP:127.0.0.1
extendedKeyUsage = serverAuth,clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Pair(NamedTuple):
    """The PEM files of a certificate and of its key."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; its own is at ``cert``."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory / name
        self._directory.mkdir()
        self.cert, self._key = self._make("authority", _OF_AUTHORITY)

    def issue(self, name: str) -> Pair:
        """Makes a certificate for this machine."""
        by = ["-CA", self.cert, "-CAkey", self._key, "-CAcreateserial"]
        return self._make(name, _OF_LEAF, by)

    def trust(self, client: "Pair | None" = None) -> ssl.SSLContext:
        """Returns the TLS context of a client that trusts only this authority."""
        context = ssl.create_default_context(cafile=self.cert)
        if client is not None:
            context.load_cert_chain(*client)
        return context

    def _make(self, name, extensions, signed_by=None):
        directory = self._directory
        request, cert, key = (directory / f"{name}.{kind}" for kind in ("csr", "pem", "key"))
        of = directory / "extensions"
        of.write_text(extensions)
        subject = f"/CN={directory.name} {name}"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", *curve, "-keyout", key, "-out", request, "-subj", subject)
        by = signed_by or ["-signkey", key]
        openssl("x509", "-req", "-in", request, *by, "-days", "2", "-extfile", of, "-out", cert)
        return Pair(cert, key)


def openssl(*arguments: object) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command")
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
