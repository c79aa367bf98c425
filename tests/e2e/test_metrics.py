"""`/metrics`: requests, queues, workers, and access to it."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import PATIENCE, wait_until
from prometheus_client.parser import text_string_to_metric_families

MODELS = """
    import time

    class Echo(ls.LitAPI):
        def predict(self, x):
            if x == "raise":
                raise RuntimeError("wrong")
            if x == "teapot":
                raise ls.HTTPException(418, "short and stout")
            if x == "slow":
                time.sleep(0.6)
            return x

    class Count(ls.LitAPI):
        def predict(self, n):
            for i in range(abs(n)):
                yield i
                time.sleep(0.01)
            if n < 0:
                raise RuntimeError("enough")

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Echo(), path="/echo", timeout=0.5, kill_after=False),
            ls.LitServer(Count(stream=True), path="/count"),
            port=0,
        )
"""


class Scrape(dict[tuple[str, tuple[tuple[str, str], ...]], float]):
    """The samples of a page of metrics, by name and labels."""

    def __init__(self, text):
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        for family in self.families.values():
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                assert key not in self, f"{key} is there twice"
                self[key] = sample.value

    def value(self, name, **labels):
        return self.get((f"litplex_{name}", tuple(sorted(labels.items()))), 0)

    def labels(self, name):
        return [dict(labels) for found, labels in self if found == f"litplex_{name}"]


def scrape(server, path="/metrics", **request):
    response = server.client.get(path, **request)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(response.text)


def outcomes(page, endpoint):
    """Returns the requests of an endpoint by outcome and code."""
    found = {}
    for labels in page.labels("requests_total"):
        if labels["endpoint"] == endpoint:
            found[labels["outcome"], labels["code"]] = page.value("requests_total", **labels)
    return found


def leave(server, path, body):
    """Sends a request, and leaves once it is under way."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), PATIENCE) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(f"{head}{body}".encode())
        wait_until(lambda: scrape(server).value("inflight_requests", endpoint=path) == 1)


@pytest.fixture
def mixed(serve):
    """A server that was asked for everything that can become of a request."""
    server = serve(MODELS)
    for body, status in [("a", 200), ("b", 200), ("raise", 500), ("teapot", 418), ("slow", 504)]:
        assert server.post("/echo", json=body).status_code == status
    assert server.post("/echo", content=b"{").status_code == 400
    assert server.post("/echo", json=1, headers={"X-Request-Timeout": "no"}).status_code == 400
    assert server.client.get("/echo").status_code == 405
    assert server.client.head("/health").status_code == 200
    for path in ("/no/1", "/no/2", "/no/3"):
        assert server.client.get(path).status_code == 404
    assert server.post("/count", json=5).text == "0\n1\n2\n3\n4\n"
    with pytest.raises(httpx.RemoteProtocolError):
        server.post("/count", json=-2)
    with server.client.stream("POST", "/count", json=10**6) as response:
        next(response.iter_text())
    wait_until(lambda: outcomes(scrape(server), "/count").get(("cancelled", "200")))
    return server


def test_every_request_is_counted_once_by_what_became_of_it(mixed):
    page = scrape(mixed)
    assert outcomes(page, "/echo") == {
        ("ok", "200"): 2,
        ("model_error", "500"): 1,
        ("bad_input", "418"): 1,
        ("timeout", "504"): 1,
        ("bad_input", "400"): 2,
        ("bad_input", "405"): 1,
    }
    assert outcomes(page, "/count") == {
        ("ok", "200"): 1,
        ("model_error", "200"): 1,
        ("cancelled", "200"): 1,
    }
    assert outcomes(page, "_other")["bad_input", "404"] == 3, "what clients ask for is no label"
    assert page.value("request_duration_seconds_count", endpoint="/echo", outcome="ok") == 2
    late = page.value("request_duration_seconds_sum", endpoint="/echo", outcome="timeout")
    assert late >= 0.5
    assert page.value("inflight_requests", endpoint="/echo") == 0
    assert page.value("inflight_requests", endpoint="_other") == 1, "this one"


def test_streams_are_measured_by_their_chunks(serve):
    server = serve(MODELS)
    server.post("/count", json=5)
    page = scrape(server)
    assert page.value("chunks_total", endpoint="/count") == 5
    assert page.value("time_to_first_chunk_seconds_count", endpoint="/count") == 1
    assert page.value("time_between_chunks_seconds_count", endpoint="/count") == 4
    assert page.value("time_between_chunks_seconds_sum", endpoint="/count") >= 0.03
    assert page.value("response_body_bytes_total", endpoint="/count") == 10


def test_workers_report_the_duration_of_their_stages(serve):
    server = serve(MODELS)
    # The first request of each worker is in the sample.
    server.post("/echo", json=1)
    server.post("/count", json=5)
    page = scrape(server)

    def stage(name, endpoint, of="count"):
        return page.value(f"stage_seconds_{of}", endpoint=endpoint, stage=name)

    assert [stage(name, "/echo") for name in ("decode", "predict", "encode")] == [1, 1, 1]
    # Of a stream, encoding is part of computing.
    assert [stage(name, "/count") for name in ("decode", "predict", "encode")] == [1, 1, 0]
    assert stage("predict", "/count", of="sum") >= 0.05


def test_requests_that_clients_leave_are_counted_apart(serve):
    server = serve(MODELS)
    leave(server, "/echo", '"slow"')
    wait_until(lambda: outcomes(scrape(server), "/echo"))
    assert outcomes(scrape(server), "/echo") == {("cancelled", ""): 1}


def test_http2_is_counted_as_http1_is(serve):
    server = serve(MODELS)
    with httpx.Client(base_url=server.url, http1=False, http2=True) as client:
        assert client.post("/echo", json="a").http_version == "HTTP/2"
        assert client.post("/echo", json="raise").status_code == 500
        assert client.post("/count", json=3).text == "0\n1\n2\n"
        head = client.head("/health")
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "2", b"")
    page = scrape(server)
    assert outcomes(page, "/echo") == {("ok", "200"): 1, ("model_error", "500"): 1}
    assert outcomes(page, "/count") == {("ok", "200"): 1}
    assert outcomes(page, "_other") == {("ok", "200"): 1}


def test_queues_and_batches_are_measured(serve):
    server = serve("""
        import time

        class Slow(ls.LitAPI):
            def batch(self, inputs):
                time.sleep(1.5)
                return inputs

            def predict(self, inputs):
                return inputs

        ls.LitServer(Slow(max_batch_size=4, batch_timeout=10), max_queue=9).run(port=0)
    """)
    bodies = ["x" * n for n in (10, 20, 30, 300)]
    senders = [
        threading.Thread(target=server.post, args=["/predict"], kwargs={"json": body})
        for body in bodies
    ]
    for sender in senders[:2]:
        sender.start()
    wait_until(lambda: scrape(server).value("queue_depth", endpoint="/predict") == 2)
    assert scrape(server).value("inflight_requests", endpoint="/predict") == 2
    for sender in senders[2:]:
        sender.start()
    worker = {"endpoint": "/predict", "worker": "0"}
    wait_until(lambda: scrape(server).value("worker_inflight_requests", **worker) == 4)
    for sender in senders:
        sender.join()
    page = scrape(server)
    assert page.value("queue_limit", endpoint="/predict") == 9
    assert page.value("queue_wait_seconds_count", endpoint="/predict") == 4
    assert page.value("batch_size_count", endpoint="/predict") == 1
    assert page.value("batch_size_sum", endpoint="/predict") == 4
    assert page.value("batch_size_bucket", endpoint="/predict", le="2") == 0
    assert page.value("batch_size_bucket", endpoint="/predict", le="4") == 1
    assert page.value("request_body_bytes_sum", endpoint="/predict") == 360 + 4 * len('""')
    assert page.value("request_body_bytes_bucket", endpoint="/predict", le="256") == 3
    assert page.value("worker_busy_seconds_total", **worker) >= 1.5


def test_refusals_are_counted_by_their_reasons(serve):
    patient = "timeout=20, max_queue=1"
    program = MODELS.replace("timeout=0.5, kill_after=False", patient)
    server = serve(program.replace("sleep(0.6)", "sleep(2)"))
    first = [
        threading.Thread(target=server.post, args=["/echo"], kwargs={"json": "slow"})
        for _ in range(2)
    ]
    worker = {"endpoint": "/echo", "worker": "0"}
    first[0].start()
    wait_until(lambda: scrape(server).value("worker_inflight_requests", **worker) == 1)
    first[1].start()
    wait_until(lambda: scrape(server).value("queue_depth", endpoint="/echo") == 1)
    assert server.post("/echo", json=1).status_code == 503
    for sender in first:
        sender.join()
    page = scrape(server)
    assert page.value("shed_total", endpoint="/echo", reason="queue_full") == 1
    assert outcomes(page, "/echo")["unavailable", "503"] == 1


def test_large_bodies_take_counted_room(serve):
    server = serve("""
        import time

        class Slow(ls.LitAPI):
            def predict(self, x):
                time.sleep(1.5)
                return len(x)

        ls.LitServer(Slow()).run(port=0, max_buffered_bytes=1 << 20)
    """)
    large = threading.Thread(target=server.post, args=["/predict"], kwargs={"json": "x" * 700_000})
    large.start()
    wait_until(lambda: scrape(server).value("buffered_body_bytes") > 700_000)
    assert server.post("/predict", json="x" * 700_000).status_code == 503
    large.join()
    page = scrape(server)
    assert page.value("buffered_body_bytes") == 0
    assert page.value("buffered_body_limit_bytes") == 1 << 20
    assert page.value("shed_total", endpoint="/predict", reason="memory") == 1


def test_workers_are_counted_by_what_they_do(serve):
    server = serve(MODELS)
    page = scrape(server)
    assert page.value("workers", endpoint="/echo", state="ready") == 1
    assert page.value("workers_wanted", endpoint="/echo") == 1
    assert page.value("endpoint_ready", endpoint="/echo") == 1
    assert page.value("worker_start_seconds", endpoint="/echo") > 0
    memory = page.value("worker_resident_memory_bytes", endpoint="/echo", worker="0")
    assert memory > 5e6
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    killed = {"endpoint": "/echo", "reason": "signal"}
    wait_until(lambda: scrape(server).value("worker_restarts_total", **killed) == 1)


def test_only_holders_of_the_key_read_metrics(serve):
    server = serve(MODELS, env={"LIT_SERVER_API_KEY": "key"})
    assert server.client.get("/metrics").status_code == 401
    assert server.client.get("/metrics", headers={"X-API-Key": "no"}).status_code == 401
    assert server.post("/echo", json=1).status_code == 401
    page = scrape(server, headers={"X-API-Key": "key"})
    assert page.value("auth_failures_total", reason="missing") == 2
    assert page.value("auth_failures_total", reason="wrong") == 1
    assert outcomes(page, "/echo") == {("bad_input", "401"): 1}
    assert outcomes(page, "_other")["bad_input", "401"] == 2


def test_metrics_can_only_be_read(serve):
    server = serve(MODELS)
    refused = server.post("/metrics", json=1)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    head = server.client.head("/metrics")
    assert (head.status_code, head.content) == (200, b"")


def test_metrics_have_a_configured_path_or_none(serve):
    elsewhere = serve(MODELS.replace("port=0", 'port=0, metrics_path="/m"'))
    assert scrape(elsewhere, "/m").value("endpoint_ready", endpoint="/echo") == 1
    assert elsewhere.client.get("/metrics").status_code == 404


def test_metrics_can_be_switched_off(serve):
    server = serve(MODELS.replace("port=0", "port=0, metrics_path=False"))
    assert server.client.get("/metrics").status_code == 404


def test_a_route_of_the_program_replaces_metrics(serve):
    pytest.importorskip("fastapi")
    server = serve(
        MODELS.split("if __name__")[0]
        + """
    first, second = ls.LitServer(Echo(), path="/echo"), ls.LitServer(Echo(), path="/other")

    @first.app.get("/metrics")
    def metrics():
        return "my own"

    @second.app.get("/other-page")
    def page():
        return "there"

    ls.run_servers(first, second, port=0)
    """
    )
    assert server.client.get("/metrics").json() == "my own"
    assert server.client.get("/other-page").json() == "there"


def test_metrics_exist_behind_the_app_of_a_program(serve):
    pytest.importorskip("fastapi")
    server = serve(
        MODELS.split("if __name__")[0]
        + """
    server = ls.LitServer(Echo(), path="/echo")

    @server.app.get("/mine")
    def mine():
        return "mine"

    server.run(port=0)
    """
    )
    assert server.client.get("/mine").json() == "mine"
    assert server.post("/echo", json="a").json() == "a"
    assert server.post("/echo", json="raise").status_code == 500
    page = scrape(server)
    assert outcomes(page, "/echo") == {("ok", "200"): 1, ("model_error", "500"): 1}
    assert outcomes(page, "_other")["ok", "200"] == 1


def test_programs_of_litserve_may_have_an_endpoint_there(serve):
    server = serve("""
        import litplex.compat._alias

        litplex.compat._alias.install()
        import litserve

        class Echo(litserve.LitAPI):
            def predict(self, x):
                return x

        litserve.LitServer(Echo(api_path="/metrics")).run(port=0, generate_client_file=False)
    """)
    assert server.post("/metrics", json=5).json() == 5


MEASURED = """
    import os

    class Measures(ls.LitAPI):
        def setup(self, device):
            self.tokens = self.counter("tokens", "Tokens generated.")
            self.free = self.gauge("free_ratio")
            self.size = self.histogram("size", buckets=[1, 10])

        def predict(self, x):
            if x == "die":
                os._exit(3)
            self.tokens.add(x)
            self.free.set(0.5)
            self.size.observe(x)
            self.log("loss", x)
            return x

    class Other(ls.LitAPI):
        def predict(self, x):
            self.log("tokens", x)
            self.log("loss", x)
            return x

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Measures(), path="/a", workers_per_device=2, accelerator="cpu",
                         idempotent=False),
            ls.LitServer(Other(), path="/b"),
            port=0,
        )
"""


def test_metrics_of_models_are_added_up_over_their_workers(serve):
    server = serve(MEASURED)
    for _ in range(20):
        assert server.post("/a", json=2).json() == 2
    server.post("/b", json=3)
    for endpoint, count in (("/a", 20), ("/b", 1)):
        labels = {"endpoint": endpoint}
        wait_until(lambda: scrape(server).value("user_loss_count", **labels) == count)  # noqa: B023
    page = scrape(server)
    assert page.value("user_tokens_total", endpoint="/a") == 40
    assert page.families["litplex_user_tokens"].documentation == "Tokens generated."
    assert page.value("user_loss_sum", endpoint="/a") == 40
    assert page.value("user_loss_sum", endpoint="/b") == 3
    assert page.value("user_size_bucket", endpoint="/a", le="1") == 0
    assert page.value("user_size_bucket", endpoint="/a", le="10") == 20
    workers = [labels for labels in page.labels("user_free_ratio")]
    assert workers and all(page.value("user_free_ratio", **labels) == 0.5 for labels in workers)
    # A worker that dies takes its gauge with it, and nothing that was counted.
    assert server.post("/a", json="die").status_code == 502
    wait_until(lambda: len(scrape(server).labels("user_free_ratio")) < len(workers))
    assert scrape(server).value("user_tokens_total", endpoint="/a") == 40
    wait_until(lambda: scrape(server).value("workers", endpoint="/a", state="ready") == 2)
    server.post("/a", json=2)
    wait_until(lambda: scrape(server).value("user_tokens_total", endpoint="/a") == 42)


def test_the_page_and_the_documentation_have_the_same_names(mixed):
    documented = (Path(__file__).parents[2] / "docs/metrics.md").read_text("utf-8")
    page = scrape(mixed)
    for name, family in page.families.items():
        name += "_total" if family.type == "counter" else ""
        assert f"| `{name}` | {family.type} |" in documented
    for name, labels in page:
        for label, value in labels:
            if label in ("outcome", "reason", "state"):
                assert f"`{value}`" in documented, (name, label, value)


def test_names_and_buckets_are_as_the_field_has_them(mixed):
    page = scrape(mixed)
    for name, family in page.families.items():
        assert family.documentation, name
        assert not name.endswith(("_total", "_ms")), name
        if family.type == "counter":
            assert all(sample.name == f"{name}_total" for sample in family.samples), name
    assert page["process_resident_memory_bytes", ()] > 1e6
    assert abs(page["process_start_time_seconds", ()] - time.time()) < 3600
    assert page["process_open_fds", ()] > 5


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_nothing_wrong(mixed):
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=scrape(mixed).text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
