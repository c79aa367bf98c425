"""The dashboard: a page of the admin API, in a real browser."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import PATIENCE, wait_until

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")

KEYS = {"OPERATOR_ANN": "all", "OPERATOR_BOB": "look", "CALLER": "call"}

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
    page.goto(f"{it.url}/dashboard#/endpoint/%2Fdouble")
    page.get_by_role("heading", name="/double").wait_for()
    for name in ("Scale …", "Reload …", "Pause …", "Drain …"):
        assert page.get_by_role("button", name=name).is_disabled()
    page.goto(f"{it.url}/dashboard#/try/%2Fdouble")
    assert page.get_by_role("button", name="Send").is_disabled()


def test_every_page_is_accessible_and_fits(operated, look):
    it = operated(PLAYED)
    it.server.post("/double", json=1)
    for phone, dark in ((False, False), (False, True), (True, False), (True, True)):
        page = look(it.url, key="all", phone=phone, dark=dark)
        links = page.get_by_role("navigation").get_by_role("link").all()
        paths = [link.get_attribute("href") for link in links]
        paths += [f"#/{kind}/%2Fdouble" for kind in ("endpoint", "try")]
        paths.append("#/try/%2Fv1%2Fchat%2Fcompletions")
        for path in paths:
            page.goto(f"{it.url}/dashboard{path}")
            page.get_by_role("heading", level=1).wait_for()
            page.get_by_text("Asking").wait_for(state="detached")
            check_access(page)


def confirm(page, button, action=None, **fields):
    """Clicks a button and confirms its dialog; returns the message that it leaves."""
    page.get_by_role("button", name=button).click()
    dialog = page.get_by_role("dialog")
    for label, value in fields.items():
        dialog.get_by_label(label).fill(value)
    dialog.get_by_role("button", name=action or button, exact=True).click()
    dialog.wait_for(state="detached")
    return page.get_by_role("status").inner_text()


def test_an_operator_changes_an_endpoint_with_its_buttons(operated, look):
    it = operated()
    page = look(it.url, key="all")
    page.get_by_role("link", name="/double").click()
    page.get_by_role("heading", name="/double").wait_for()
    assert confirm(page, "Scale", Workers="2") == "/double is to have 2 workers, not 1."
    page.get_by_role("cell", name="#1").wait_for()
    page.get_by_role("button", name="Stack of worker 0").click()
    page.get_by_role("region", name="Stack of /double#0").get_by_text("most recent call").wait_for()
    page.get_by_role("button", name="Hide").click()
    assert confirm(page, "Reload").startswith("Generation 2 of /double is ready after ")
    generations = page.get_by_role("region", name="Generations of /double")
    generations.get_by_text("live").wait_for()
    for generation, button in ((3, "Roll back"), (4, "Promote")):
        said = confirm(page, "Reload", **{"Share of the requests": "0.5"})
        assert said.startswith(f"Generation {generation} of /double is ready after "), said
        generations.get_by_text("50 % of the requests").wait_for()
        check_access(page)
        confirm(page, button)
        generations.get_by_text("50 % of the requests").wait_for(state="detached")
    confirm(page, "Reload", **{"Share of which copies": "1"})
    generations.get_by_text("copies of 100 % of the requests").wait_for()
    assert it.server.post("/double", json=1).json() == 2
    generations.get_by_role("cell", name="0 of 1").wait_for()
    confirm(page, "Roll back")
    said = confirm(page, "Return to generation 2", "Return")
    assert said == "/double is back at generation 2."
    assert confirm(page, "Pause") == "/double is paused."
    page.get_by_role("heading").get_by_text("paused").wait_for()
    assert confirm(page, "Resume") == "/double serves."
    assert confirm(page, "Drain") == "/double drains."
    assert it.server.post("/double", json=1).status_code == 503
    assert confirm(page, "Resume") == "/double serves."
    assert it.server.post("/double", json=1).json() == 2
    # The reason of a refusal stays in the dialog.
    page.get_by_role("button", name="Reload").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Seconds").fill("0.001")
    dialog.get_by_label("Seconds").evaluate("input => input.min = 0")
    dialog.get_by_role("button", name="Reload").click()
    dialog.get_by_role("alert").get_by_text("0.001 s").wait_for()
    check_access(page)
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_text("ann").click()
    page.get_by_role("button", name="Level of the log").click()
    dialog.get_by_label("Level").fill("debug")
    dialog.get_by_role("button", name="Set").click()
    page.get_by_text("The level of the log is debug.").wait_for()
    page.get_by_role("link", name="Events").click()
    for text in ("scaled from 1 to 2 workers", "is paused", "the level of the log is debug"):
        page.get_by_role("cell", name=text).wait_for()


def test_the_log_is_followed_by_endpoint_and_request(operated, look):
    it = operated()
    page = look(it.url, key="look", path="logs?endpoint=%2Fdouble")
    log = page.get_by_role("list", name="Lines of the log")
    log.get_by_text("ready after").first.wait_for()
    ids = [it.server.post("/relay", json=x).headers["X-Request-Id"] for x in (7, 8)]
    log.get_by_text("doubles 8").wait_for()
    assert log.get_by_text("/relay").count() == 0
    page.goto(f"{it.url}/dashboard#/logs?request={ids[0]}")
    log.get_by_text("doubles 7").wait_for()
    assert log.get_by_text("doubles 8").count() == 0
    page.get_by_label("Request").fill("")
    page.get_by_label("Request").press("Enter")
    log.get_by_text("doubles 8").wait_for()
    page.get_by_label("Contains").fill("doubles 7")
    log.get_by_text("doubles 8").wait_for(state="detached")
    page.get_by_role("button", name="Hold").click()
    it.server.post("/relay", json=7)
    page.get_by_role("button", name="Follow").click()
    log.get_by_text("doubles 7").nth(1).wait_for()


def test_a_request_is_shown_with_its_stages(operated, look):
    it = operated()
    number = it.server.post("/relay", json=3).headers["X-Request-Id"]
    page = look(it.url, key="look", path="requests")
    page.get_by_role("link", name=number[-12:]).click()
    stages = page.get_by_role("list", name="Stages of the request")
    for name in ("edge", "queue /double", "worker /double #0, generation 1", "response"):
        stages.get_by_text(name).first.wait_for()
    check_access(page)
    page.get_by_role("link", name="Logs of this request").click()
    page.get_by_text("doubles 3").wait_for()
    page.get_by_role("link", name="Requests").click()
    page.get_by_role("button", name="Failed").click()
    page.get_by_text("None of the remembered requests").wait_for()


def test_calls_and_options_are_shown(operated, look):
    it = operated()
    it.server.post("/relay", json=3)
    page = look(it.url, key="look", path="graph")
    row = page.get_by_role("row").filter(has_text="/relay").filter(has_text="/double")
    row.get_by_text("call").wait_for()
    page.get_by_role("link", name="Configuration").click()
    page.get_by_role("cell", name="request_id").wait_for()
    page.get_by_role("cell", name="ann").first.wait_for()
    assert "sha256" not in page.content() and "OPERATOR_ANN" not in page.content()
    assert page.get_by_role("cell", name="keep_alive_timeout").count() == 0
    page.get_by_label("with the options that have their defaults").check()
    page.get_by_role("cell", name="keep_alive_timeout").wait_for()


PLAYED = """
    import io
    import time

    from PIL import Image
    from pydantic import BaseModel

    class Double(ls.LitAPI):
        def predict(self, x):
            return 2 * x

    class Page(BaseModel):
        words: str
        times: int = 2
        loud: bool = False

    class Repeat(ls.LitAPI):
        def decode_request(self, request: Page):
            return request

        def predict(self, page):
            text = page.words * page.times
            return {"text": text.upper() if page.loud else text}

    class Picture(ls.LitAPI):
        def predict(self, x):
            return Image.new("RGB", (7, 5), "red")

        def encode_response(self, picture):
            data = io.BytesIO()
            picture.save(data, "PNG")
            return ls.Response(data.getvalue(), media_type="image/png")

    class Chat(ls.LitAPI):
        def predict(self, request):
            yield "You said "
            for word in request.messages[-1].content.split():
                yield word + " "
                if word == "slowly":
                    time.sleep(60)

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Double(), path="/double", api_keys={"eve": "env:CALLER"}),
            ls.LitServer(Repeat(), path="/repeat"),
            ls.LitServer(Picture(), path="/picture"),
            ls.LitServer(Chat(spec=ls.OpenAISpec()), path="/v1/chat/completions", name="chat"),
            port=0,
            admin_port=0,
            admin_keys={"ann": "env:OPERATOR_ANN"},
            admin_read_keys={"bob": "env:OPERATOR_BOB"},
        )
"""


def test_the_playground_sends_requests_through_the_real_queue(operated, look):
    it = operated(PLAYED)
    page = look(it.url, key="all", path="try/%2Fdouble")
    body = page.get_by_label("Body (JSON)")
    response = page.get_by_role("region", name="Body of the response")
    body.fill("21")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("401", exact=True).wait_for()
    page.get_by_label("Key of a caller").fill("call")
    body.press("Control+Enter")
    response.get_by_text("42", exact=True).wait_for()
    page.get_by_text("200", exact=True).wait_for()
    check_access(page)
    # What is not JSON is not sent.
    body.fill("{")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("alert").get_by_text("JSON").wait_for()

    page.goto(f"{it.url}/dashboard#/try/%2Frepeat")
    page.get_by_label("words").fill("ho")
    page.get_by_label("times").fill("3")
    page.get_by_label("loud").check()
    page.get_by_role("button", name="Send").click()
    response.get_by_text("HOHOHO").wait_for()
    check_access(page)

    page.goto(f"{it.url}/dashboard#/try/%2Fpicture")
    page.get_by_label("Body (JSON)").fill("1")
    page.get_by_role("button", name="Send").click()
    picture = page.get_by_role("img", name="The picture that the endpoint responds with")
    picture.wait_for()
    page.wait_for_function("document.querySelector('img.answer').naturalWidth === 7")
    check_access(page)
    page.get_by_role("button", name="File", exact=True).click()
    file = {"name": "a.json", "mimeType": "application/json", "buffer": b"1"}
    page.get_by_label("Drop a file here").set_input_files(file)
    page.get_by_text("a.json, 1 B").wait_for()
    page.get_by_role("button", name="Send").click()
    picture.wait_for()


def test_a_chat_streams_and_is_stopped(operated, look):
    it = operated(PLAYED)
    page = look(it.url, key="all", path="try/%2Fv1%2Fchat%2Fcompletions")
    message = page.get_by_label("Message", exact=True)
    chat = page.get_by_role("list", name="Messages")
    message.fill("hello")
    message.press("Enter")
    chat.get_by_text("You said hello").wait_for()
    message.fill("go slowly on")
    page.get_by_role("button", name="Send").click()
    chat.get_by_text("You said go slowly").wait_for()
    page.get_by_role("button", name="Stop").click()
    chat.get_by_text("Stopped.").wait_for()
    assert chat.get_by_text("slowly on").count() == 1, "only the own message goes on"
    check_access(page)


REPLAYED = """
    class Slow(ls.LitAPI):
        def predict(self, x):
            return {"y": x["x"] * 2}

        request_example = {"x": 1}

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Slow(), path="/double", api_keys={"eve": "env:CALLER"}, timeout=30),
            port=0,
            keep_bodies=40,
            admin_port=0,
            admin_dashboard=True,
            admin_keys={"ann": "env:OPERATOR_ANN"},
            admin_read_keys={"bob": "env:OPERATOR_BOB"},
        )
"""

# What the page copies; the clipboard itself is not for a page without a person.
COPIED = """
    window.copied = [];
    navigator.clipboard.writeText = async text => { window.copied.push(text) };
"""


def test_a_request_is_copied_and_sent_again(operated, look):
    it = operated(REPLAYED)
    key = {"X-API-Key": "call"}

    def request(request_id, body, headers=key, **more):
        headers = {**headers, **more, "X-Request-ID": request_id}
        return it.server.post("/double", content=body, headers=headers).status_code

    is_json = {"Content-Type": "application/json"}
    assert request("whole", b'{"x": "it\'s"}', **is_json) == 200
    assert request("cut", b'{"x": "' + 50 * b"a" + b'"}', **is_json) == 200
    assert request("masked", b'{"x": "a", "token": "b"}', **is_json) == 200
    assert request("unread", b'{"x": "a"}', headers={}, **is_json) == 401
    assert request("form", b"a=b", **{"Content-Type": "application/x-www-form-urlencoded"}) == 500

    page = look(it.url, key="all", path="requests/whole")
    page.evaluate(COPIED)

    def copied(button):
        before = len(page.evaluate("copied"))
        page.get_by_role("button", name=button).click()
        wait_until(lambda: len(page.evaluate("copied")) > before)
        return page.evaluate("copied")[-1]

    replay = page.get_by_role("button", name="Replay")
    replay.wait_for()
    curl, python = copied("Copy as curl"), copied("Copy as Python")
    environment = {**os.environ, "LITPLEX_KEY": "call"}
    for command in (["sh", "-c", curl], [sys.executable, "-c", python]):
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert '{"y":"it\'sit\'s"}' in said.stdout.replace(" ", ""), said
    # Without a key the endpoint refuses the replay, which is shown all the same.
    replay.click()
    page.get_by_role("heading", name="Beside the original").wait_for()
    row = page.get_by_role("row").filter(has_text="status")
    assert [cell.inner_text() for cell in row.get_by_role("cell").all()[1:3]] == ["200", "401"]
    page.get_by_role("link", name="The original").click()
    page.get_by_role("heading", name="whole").wait_for()
    page.get_by_label("Key of a caller").fill("call")
    replay.click()
    beside = page.get_by_role("region", name="The replay beside the original")
    beside.wait_for()
    assert [cell.inner_text() for cell in row.get_by_role("cell").all()[1:3]] == ["200", "200"]
    for name in ("duration", "queue", "worker", "bytes out"):
        beside.get_by_role("cell", name=name, exact=True).wait_for()
    assert page.get_by_role("heading", level=1).inner_text().startswith("Request replay-")
    page.get_by_text("Response: application/json").click()
    page.get_by_role("region", name="Body of the response").get_by_text("it'sit's").wait_for()
    check_access(page)
    # A replay can be sent again itself, and edited.
    replay.wait_for()
    page.get_by_role("link", name="Open in the playground").click()
    body = page.get_by_label("Body (JSON)")
    body.wait_for()
    assert body.input_value() == '{"x": "it\'s"}'
    assert page.get_by_label("Key of a caller").input_value() == "call"

    for request_id, says in (
        ("cut", "keep_bodies to at least 59"),
        ("unread", "has not read its body"),
        ("form", "for JSON and text"),
        ("masked", "are masked"),
    ):
        page.goto(f"{it.url}/dashboard#/requests/{request_id}")
        page.get_by_role("heading", name=request_id).wait_for()
        page.get_by_text(says).wait_for()
        assert replay.count() == 0
        check_access(page)
        curl = copied("Copy as curl")
        assert ("***" in curl) == (request_id == "masked")
        assert ('{"x":1}' in curl) == (request_id != "masked"), curl
    page = look(it.url, key="look", path="requests/whole")
    assert page.get_by_role("button", name="Replay").is_disabled()
    page.get_by_role("button", name="Copy as curl").wait_for()


def test_without_kept_bodies_the_page_says_what_to_set(operated, look):
    it = operated()
    number = it.server.post("/relay", json=3).headers["X-Request-Id"]
    page = look(it.url, key="all", path=f"requests/{number}")
    page.get_by_text("Set keep_bodies to the bytes").wait_for()
    assert page.get_by_role("button", name="Replay").count() == 0


def test_the_program_is_reloaded_after_its_plan_was_shown(operated, look, tmp_path):
    it = operated(REPLAYED)
    page = look(it.url, key="all")
    program = tmp_path / "server.py"
    text = program.read_text()

    def open_plan():
        page.get_by_text("ann").click()
        page.get_by_role("button", name="Reload the program").click()
        return page.get_by_role("dialog")

    dialog = open_plan()
    dialog.get_by_text("Nothing differs").wait_for()
    assert dialog.get_by_role("button", name="Apply").count() == 0
    check_access(page)
    dialog.get_by_role("button", name="Close").click()
    dialog.wait_for(state="detached")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"

    program.write_text(text.replace("timeout=30", "timeout=31").replace("=40", "=50"))
    dialog = open_plan()
    dialog.get_by_text("timeout: 30s → 31s", exact=True).wait_for()
    dialog.get_by_text("keep_bodies: 40 → 50").wait_for()
    check_access(page)
    dialog.get_by_role("button", name="Apply").click()
    dialog.get_by_role("heading", name="The program is reloaded").wait_for()
    dialog.get_by_text("is served by generation 2").wait_for()
    check_access(page)
    dialog.get_by_role("button", name="Close").click()

    program.write_text(text.replace("timeout=30", "timout=30"))
    dialog = open_plan()
    dialog.get_by_role("alert").get_by_text("there is no option `timout`").wait_for()
    check_access(page)
    dialog.get_by_role("button", name="Close").click()

    setup = "def setup(self, device):\n        raise OSError('no weights')\n\n    def predict"
    failing = text.replace("def predict", setup)
    program.write_text(failing.replace("timeout=30", "timeout=32"))
    dialog = open_plan()
    dialog.get_by_role("button", name="Apply").click()
    dialog.get_by_role("heading", name="1 of 1 changes failed").wait_for()
    dialog.get_by_text("stays as it was").wait_for()
    dialog.get_by_text("no weights").wait_for()
    check_access(page)

    page = look(it.url, key="look", path="config")
    page.get_by_role("heading", name="Configuration").wait_for()
    assert page.get_by_role("main").get_by_role("button", name="Reload").is_disabled()


def test_the_dashboard_is_on_the_port_of_endpoints_if_it_is_asked_for(operated, look):
    it = operated(REPLAYED)
    url = it.server.url
    it.server.wait_for_line(f"the dashboard, for holders of `admin_keys`: {url}/dashboard")
    assert (
        it.server.post("/double", json={"x": 2}, headers={"X-API-Key": "call"}).status_code == 200
    )
    page = look(url, key="all")
    page.get_by_role("link", name="/double").click()
    page.get_by_role("heading", name="/double").wait_for()
    assert confirm(page, "Pause") == "/double is paused."
    assert confirm(page, "Resume") == "/double serves."
    page.get_by_role("link", name="Events").click()
    page.get_by_role("cell", name="is paused").wait_for()
    page.get_by_role("link", name="Logs").click()
    page.get_by_role("list", name="Lines of the log").get_by_text("ready after").first.wait_for()
    check_access(page)
    page.goto(f"{url}/dashboard#/try/%2Fdouble")
    page.get_by_label("Key of a caller").fill("call")
    page.get_by_role("button", name="JSON").click()
    page.get_by_label("Body (JSON)").fill('{"x": 4}')
    page.get_by_role("button", name="Send").click()
    page.get_by_role("region", name="Body of the response").get_by_text("8").wait_for()
    # Pages of models have the same origin: no storage has the key, and no address.
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0
    assert "all" not in page.url
    page.reload()
    page.get_by_label("Key").wait_for()
    # An open page, which follows events and the log, does not delay the end of the server.
    sign_in(page, "all")
    page.goto(f"{url}/dashboard#/logs")
    page.get_by_role("list", name="Lines of the log").get_by_text("ready after").first.wait_for()
    it.server.process.terminate()
    assert it.server.wait() == 0
    assert "did not finish in time" not in it.server.output


def test_an_open_dashboard_does_not_delay_an_upgrade(operated, litplex):
    it = operated(REPLAYED)
    key = {"X-API-Key": "look"}
    path = f"{it.server.url}/dashboard/v1/events"
    with httpx.stream("GET", path, headers=key, timeout=PATIENCE) as events:
        assert events.status_code == 200
        status, _, error = litplex("upgrade")
        assert status == 0, error
        assert sum(1 for _ in events.iter_lines()) > 0
    it.server.wait_for_line(r"the requests of process \d+ are finished")
    assert httpx.get(path, headers=key, params={"follow": "false"}).status_code == 200


def test_a_call_of_an_operator_is_one_of_a_client(operated):
    it = operated(PLAYED)
    with httpx.Client(base_url=it.url, timeout=PATIENCE) as admin:

        def call(label, body, key="all", **headers):
            headers = {"Authorization": f"Bearer {key}", **headers}
            path = f"/v1/endpoints/{label}/call"
            return admin.post(path, json=body, headers=headers)

        caller = {"Caller-Authorization": "Bearer call"}
        answer = call("%2Fdouble", 4, **caller)
        assert (answer.json(), answer.headers["Litplex-Endpoint"]) == (8, "/double")
        # The key of the operator opens no endpoint, and that of a caller not the admin API.
        refused = call("%2Fdouble", 4)
        assert (refused.status_code, refused.headers["Litplex-Endpoint"]) == (401, "/double")
        refused = call("%2Fdouble", 4, key="call", **caller)
        assert (refused.status_code, "Litplex-Endpoint" in refused.headers) == (401, False)
        refused = call("%2Fdouble", 4, key="look", **caller)
        assert refused.status_code == 403 and "may only read" in refused.json()["error"]
        assert call("no", 4).status_code == 404
        document = admin.get(
            "/v1/endpoints/%2Frepeat/openapi", headers={"X-API-Key": "look"}
        ).json()
        assert [*document["paths"]] == ["/repeat"]
    # It is counted as a request.
    page = it.server.client.get("/metrics").text
    counts = re.findall(r'litplex_requests_total\{.*"/double".*\} (\d+)', page)
    assert sum(map(int, counts)) == 2


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
