"""The dashboard: a page of the admin API, in a real browser."""

import importlib.util
import os
import re
import shutil
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import PATIENCE

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

KEYS = {"OPERATOR_ANN": "all", "OPERATOR_BOB": "look"}

SERVER = """
    class Double(ls.LitAPI):
        def predict(self, x):
            print("doubles", x)
            return 2 * x

    class Relay(ls.LitAPI):
        double = ls.endpoint("/double")

        def predict(self, x):
            return self.double(x)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Double(), path="/double"),
            ls.LitServer(Relay(), path="/relay", name="relay"),
            port=0,
            request_id=True,
            admin_port=0,
            admin_keys={"ann": "env:OPERATOR_ANN"},
            admin_read_keys={"bob": "env:OPERATOR_BOB"},
        )
"""


@pytest.fixture
def operated(serve, runtime):
    """Starts a server with a port for operators; returns it with the address of the port."""

    def start(text=SERVER):
        server = serve(text, env={**runtime, **KEYS})
        url = server.wait_for_line(r"the admin API, for holders of `admin_keys`: (\S+)")[1]
        return SimpleNamespace(server=server, url=url)

    return start


@pytest.fixture(scope="module")
def browser():
    """Starts a browser for all tests of this file."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs Playwright, which is not locked for this Python")
    if CHROMIUM is None:
        pytest.skip("needs a browser: install Debian's `chromium`, or name one in CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def look(browser):
    """Opens the dashboard; checks in the end that it logged no error and asked no other server."""
    contexts = []
    errors = []

    def start(url, *, key=None, phone=False, dark=False, path=""):
        context = browser.new_context(
            viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 800},
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        # A refused request is logged by the browser itself.
        page.on(
            "console",
            lambda line: (
                errors.append(line.text)
                if line.type in ("error", "warning") and "Failed to load" not in line.text
                else None
            ),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        own = urlsplit(url).netloc
        page.on(
            "request",
            lambda request: (
                errors.append(f"asked {request.url}")
                if request.url.startswith("http") and urlsplit(request.url).netloc != own
                else None
            ),
        )
        page.goto(f"{url}/dashboard#/{path}")
        if key:
            sign_in(page, key)
        return page

    yield start
    for context in contexts:
        context.close()
    assert errors == []


def sign_in(page, key):
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Open").click()
    page.get_by_role("navigation").wait_for()


def check_access(page):
    """Checks that the page has no fault that axe finds, and is not wider than the screen."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    told = [
        (fault["id"], [node["html"] + node["failureSummary"] for node in fault["nodes"]])
        for fault in found
    ]
    assert told == []
    width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert width <= 0, f"{page.url} is {width} pixels wider than the screen"


def test_the_page_is_static_and_needs_no_key(operated):
    it = operated()
    with httpx.Client(base_url=it.url, timeout=PATIENCE) as client:
        moved = client.get("/")
        assert (moved.status_code, moved.headers["Location"]) == (307, "dashboard")
        page = client.get("/dashboard", headers={"Accept-Encoding": "identity"})
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';") and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        links = re.findall(r'(?:href|src)="(dashboard/[^"]+)"', page.text)
        sizes = []
        for link in {"dashboard", *links}:
            # The size as it is sent; httpx decompresses.
            with client.stream("GET", f"/{link}", headers={"Accept-Encoding": "gzip"}) as answer:
                sizes.append(sum(map(len, answer.iter_raw())))
                assert answer.headers["Content-Encoding"] == "gzip"
            assert client.get(f"/{link}").headers["ETag"] == answer.headers["ETag"]
        assert sum(sizes) <= 80_000
        assert client.post("/dashboard").status_code == 401
        assert client.get("/dashboard/no.js").status_code == 401
        for path in ("/v1/session", "/v1/load", "/v1/server"):
            assert client.get(path).status_code == 401
        asked = [
            client.get("/v1/session", headers={"X-API-Key": key}).json() for key in ("all", "look")
        ]
        assert asked == [
            {"holder": "ann", "may_change": True},
            {"holder": "bob", "may_change": False},
        ]
        # A link on another site leads to the page; the site itself cannot read it.
        visit = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        for headers, status in ((visit, 200), ({}, 403)):
            headers = {"Sec-Fetch-Site": "cross-site", **headers}
            assert client.get("/dashboard", headers=headers).status_code == status
    # It is not on the port of the endpoints.
    assert it.server.client.get("/dashboard").status_code == 404


def test_the_private_socket_has_the_page_and_needs_no_key(operated, runtime):
    operated()
    (socket,) = (
        os.path.join(directory, "admin.sock")
        for directory, _, files in os.walk(runtime["XDG_RUNTIME_DIR"])
        if "admin.sock" in files
    )
    transport = httpx.HTTPTransport(uds=socket)
    with httpx.Client(base_url="http://localhost:1", transport=transport) as client:
        assert "<!DOCTYPE html>" in client.get("/dashboard").text
        assert client.get("/v1/session").json() == {"holder": None, "may_change": True}
        foreign = {"Origin": "https://evil.example"}
        assert client.post("/v1/stop", headers=foreign).status_code == 403


def test_a_key_opens_the_overview(operated, look):
    it = operated()
    page = look(it.url)
    page.get_by_label("Key").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The server does not accept this key.").wait_for()
    check_access(page)
    sign_in(page, "all")
    double = page.get_by_role("listitem").filter(has_text="/double")
    double.get_by_text("ready", exact=True).wait_for()
    for x in range(3):
        it.server.post("/relay", json=x)
    double.get_by_text("1/1").wait_for()
    # The key stays in the tab.
    page.reload()
    double.wait_for()
    page.get_by_text("ann").click()
    page.get_by_role("button", name="Forget the key").click()
    page.get_by_label("Key").wait_for()
    page.reload()
    page.get_by_label("Key").wait_for()


def test_a_key_that_may_only_read_changes_nothing(operated, look):
    it = operated()
    page = look(it.url, key="look")
    page.get_by_text("bob (read only)").click()
    for name in ("Level of the log", "Stop the server"):
        assert page.get_by_role("button", name=name).is_disabled()


def test_every_page_is_accessible_and_fits(operated, look):
    it = operated()
    it.server.post("/relay", json=1)
    for phone, dark in ((False, False), (True, True)):
        page = look(it.url, key="all", phone=phone, dark=dark)
        for link in page.get_by_role("navigation").get_by_role("link").all():
            link.click()
            page.get_by_role("heading", level=1).wait_for()
            check_access(page)


def test_the_page_says_that_the_server_is_gone_and_comes_back(operated, look):
    it = operated()
    page = look(it.url, key="all")
    page.get_by_role("listitem").filter(has_text="/double").wait_for()
    page.get_by_text("ann").click()
    page.get_by_role("button", name="Stop the server").click()
    dialog = page.get_by_role("dialog")
    check_access(page)
    # Escape leaves the server alone.
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    page.get_by_text("ann").click()
    page.get_by_role("button", name="Stop the server").click()
    dialog.get_by_role("button", name="Stop the server").click()
    page.get_by_text("The server does not respond.").wait_for()
    assert it.server.wait() == 0
    check_access(page)


def test_the_page_is_used_with_the_keyboard_alone(operated, look):
    it = operated()
    page = look(it.url)
    page.get_by_label("Key").wait_for()
    page.keyboard.type("all")
    page.keyboard.press("Enter")
    page.get_by_role("navigation").wait_for()
    page.reload()
    page.get_by_role("navigation").wait_for()
    focused = "document.activeElement.textContent"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    page.get_by_role("link", name="/relay").wait_for()
    seen = []
    while "/relay" not in seen:
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
        assert len(seen) < 20, seen
    assert seen.index("/double") < seen.index("/relay")
