"""The conversion of LitServe's arguments and variables for TLS."""

import base64
import ssl
from pathlib import Path

import pytest
from litplex.compat._arguments import read_run_arguments

CERT, KEY = (f"-----BEGIN {kind}-----\nAAAA\n" for kind in ("CERTIFICATE", "PRIVATE KEY"))


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("LIGHTNING_CERT_PEM", "LIGHTNING_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


def give_variables(monkeypatch, cert=CERT, key=KEY):
    monkeypatch.setenv("LIGHTNING_CERT_PEM", base64.b64encode(cert.encode()).decode())
    monkeypatch.setenv("LIGHTNING_KEY_FILE", base64.b64encode(key.encode()).decode())


FILES = {"ssl_certfile": "c.pem", "ssl_keyfile": "k.pem"}
OURS = {"tls_cert": "c.pem", "tls_key": "k.pem"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (FILES, OURS),
        ({"ssl_certfile": Path("c.pem"), "ssl_keyfile": Path("k.pem")}, OURS),
        # One file may hold both.
        ({"ssl_certfile": "c.pem"}, {"tls_cert": "c.pem", "tls_key": "c.pem"}),
        (
            {**FILES, "ssl_ca_certs": "ca.pem", "ssl_cert_reqs": ssl.CERT_REQUIRED},
            {**OURS, "tls_client_ca": "ca.pem"},
        ),
        # Neither LitServe nor litplex asks clients for a certificate.
        ({**FILES, "ssl_ca_certs": "ca.pem"}, OURS),
        ({**FILES, "ssl_ca_certs": "ca.pem", "ssl_cert_reqs": 0}, OURS),
        ({**FILES, "ssl_version": ssl.PROTOCOL_TLS_SERVER, "ssl_ciphers": None}, OURS),
        ({"ssl_cert_reqs": ssl.CERT_NONE}, {}),
        (OURS, OURS),
    ],
)
def test_arguments_are_options_of_other_names(given, expected):
    assert read_run_arguments({"port": 1, **given}) == ({"port": 1, **expected}, [])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({**FILES, "ssl_keyfile_password": "x"}, "`ssl_keyfile_password` is not supported; write"),
        (
            {**FILES, "ssl_ciphers": "ALL"},
            "`ssl_ciphers` is not supported; the server has TLS 1.2 and 1.3",
        ),
        (
            {**FILES, "ssl_version": 5},
            "`ssl_version` is not supported; the server has TLS 1.2 and 1.3",
        ),
        ({"ssl_context_factory": print}, "`ssl_context_factory` is not supported; name PEM files"),
        ({**FILES, "ssl_cert_reqs": ssl.CERT_OPTIONAL}, "`ssl_cert_reqs` must be ssl.CERT_REQ"),
        ({**FILES, "ssl_cert_reqs": ssl.CERT_REQUIRED}, "`ssl_cert_reqs` needs `ssl_ca_certs`"),
        ({"ssl_keyfile": "k.pem"}, "`ssl_keyfile` needs `ssl_certfile`"),
        ({**FILES, **OURS}, "`ssl_certfile` and `tls_cert` set the same"),
    ],
)
def test_unsupported_arguments_are_refused(given, says):
    _, [error] = read_run_arguments(given)
    assert error.startswith(says)


def test_variables_are_handed_over_as_they_are(monkeypatch):
    give_variables(monkeypatch)
    assert read_run_arguments({}) == ({"tls_cert": CERT, "tls_key": KEY}, [])


@pytest.mark.parametrize("given", [FILES, OURS])
def test_arguments_come_before_variables(monkeypatch, given):
    give_variables(monkeypatch)
    assert read_run_arguments(given) == (OURS, [])


def test_one_variable_alone_means_nothing(monkeypatch):
    give_variables(monkeypatch)
    monkeypatch.setenv("LIGHTNING_KEY_FILE", "")
    assert read_run_arguments({}) == ({}, [])


@pytest.mark.parametrize("key", ["no PEM", "\x00"])
def test_a_variable_that_holds_no_pem_is_named_and_not_shown(monkeypatch, key):
    give_variables(monkeypatch, key=key)
    _, [error] = read_run_arguments({})
    assert error.startswith("LIGHTNING_KEY_FILE must be the base64 of PEM")
    monkeypatch.setenv("LIGHTNING_KEY_FILE", "/etc/key.pem")
    assert len(read_run_arguments({})[1]) == 1
