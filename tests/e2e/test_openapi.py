"""How the endpoints are described: the document, and the page that shows it."""

import re
from urllib.parse import urljoin, urlsplit

SMALL = """
    class Echo(ls.LitAPI):
        def predict(self, x):
            return x

    ls.LitServer(Echo(), path="/echo").run(port=0)
"""
# What the policy of the page allows besides the server itself.
INLINE = {"'unsafe-inline'", "data:", "blob:"}


def wants_of(page):
    """What a browser loads for a page."""
    return re.findall(r'(?:src|href)="([^"]+)"', page)


def test_the_page_and_all_that_it_loads_come_from_the_server(serve):
    server = serve(SMALL)
    for path in ("/docs", "/redoc"):
        page = server.client.get(path)
        assert page.headers["content-type"].startswith("text/html")
        wanted = wants_of(page.text)
        assert {"docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"} <= set(wanted)
        for address in wanted:
            assert not urlsplit(address).netloc, address
            file = server.client.get(urljoin(path, address))
            assert file.status_code == 200, address
            assert file.headers.get("content-encoding") == "gzip" or "start.js" in address
    style = server.client.get("/docs/swagger-ui.css").text
    assert ".swagger-ui" in style
    loaded = re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')]*)", style)
    assert all(address.startswith("data:") for address in loaded), loaded
    start = server.client.get("/docs/start.js").text
    assert 'url: "openapi.json"' in start
    assert "http" not in start
    assert "SwaggerUIBundle" in server.client.get("/docs/swagger-ui-bundle.js").text


def test_a_browser_is_told_to_ask_nobody_else(serve):
    policy = serve(SMALL).client.get("/docs").headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("base-uri") == rules.pop("object-src") == "'none'"
    assert rules["default-src"] == "'self'"
    assert "script-src" not in rules
    for rule, sources in rules.items():
        assert set(sources.split()) - INLINE == {"'self'"}, rule


def test_clients_that_cannot_unpack_get_it_unpacked(serve):
    client = serve(SMALL).client
    for path in ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/favicon-32x32.png"):
        plain = client.get(path, headers={"Accept-Encoding": "identity"})
        packed = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in plain.headers
        assert (packed.headers["content-encoding"], packed.headers["vary"]) == (
            "gzip",
            "Accept-Encoding",
        )
        assert plain.content == packed.content != b""
        head = client.head(path, headers={"Accept-Encoding": "identity"})
        assert int(head.headers["content-length"]) == len(plain.content)


def test_without_openapi_there_is_no_page(serve):
    client = serve(SMALL.replace("port=0", "port=0, openapi=False")).client
    for path in ("/openapi.json", "/docs", "/redoc", "/docs/start.js", "/docs/swagger-ui.css"):
        assert client.get(path).status_code == 404
