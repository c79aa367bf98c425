"""The identity of a caller behind proxies."""

import json

import pytest
from conftest import wait_until

pytest.importorskip("fastapi")

PROGRAM = """
    from fastapi import Request

    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    server = ls.LitServer(Echo(), rate_limit="1/h")

    @server.app.get("/seen")
    def seen(request: Request):
        return [str(request.url), request.client.host]

    server.run(port=0, access_log="access.log", {options})
"""
TRUSTED = 'trusted_proxies=["127.0.0.0/8", "fd00::1"]'
FORWARDED = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7, fd00::1", "X-Forwarded-Proto": "https"}


@pytest.fixture
def proxied(serve):
    def start(options):
        return serve(PROGRAM.format(options=options))

    return start


@pytest.fixture
def clients(tmp_path):
    """Returns the clients in the access log, once there are so many."""

    def read(count):
        file = tmp_path / "access.log"
        wait_until(lambda: len(file.read_text().splitlines()) >= count)
        return [json.loads(line)["client"] for line in file.read_text().splitlines()]

    return read


def test_a_trusted_proxy_names_the_caller(proxied, clients):
    server = proxied(TRUSTED)
    url, host = server.client.get("/seen", headers=FORWARDED).json()
    assert (url, host) == (server.url.replace("http:", "https:") + "/seen", "203.0.113.7")

    def status(forwarded):
        return server.post("/predict", json=1, headers={"X-Forwarded-For": forwarded}).status_code

    # A header that the client writes itself does not change its identity.
    callers = ("203.0.113.7", "203.0.113.7", "1.2.3.4, 203.0.113.7", "203.0.113.8", "2001:db8::7")
    assert [status(caller) for caller in callers] == [200, 429, 429, 200, 200]
    named = [caller.rpartition(" ")[2] for caller in callers]
    assert clients(6) == ["203.0.113.7", *named]


def test_other_proxies_are_not_trusted(proxied, clients):
    server = proxied('trusted_proxies=["10.0.0.0/8"]')
    assert server.client.get("/seen", headers=FORWARDED).json() == [
        f"{server.url}/seen",
        "127.0.0.1",
    ]
    statuses = [
        server.post("/predict", json=1, headers={"X-Forwarded-For": caller}).status_code
        for caller in ("203.0.113.7", "203.0.113.8")
    ]
    assert statuses == [200, 429]
    assert clients(3) == ["127.0.0.1"] * 3
