"""Traces: the spans that a collector gets, and the context that hooks see."""

import signal
import threading

import pytest
from collector import Collector
from conftest import wait_until

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE, SPAN = PARENT.split("-")[1:3]

MODELS = """
    import time

    class Slow(ls.LitAPI):
        def decode_request(self, request):
            time.sleep(0.02)
            return request

        def predict(self, x):
            time.sleep(0.04)
            if x == "raise":
                raise RuntimeError("wrong")
            return x

        def encode_response(self, output):
            time.sleep(0.03)
            return output

    class Told(ls.LitAPI):
        def predict(self, x, context):
            return [context.traceparent, context.headers.get("tracestate")]

    class Pairs(ls.LitAPI):
        def predict(self, xs):
            time.sleep(0.02)
            return xs

    class Count(ls.LitAPI):
        def predict(self, n):
            for i in range(n):
                time.sleep(0.02)
                yield i

    class Later(ls.LitAPI):
        async def predict(self, x):
            import asyncio
            await asyncio.sleep(0.02)
            return x

    class Steps(ls.ContinuousAPI):
        def admit(self, x):
            return [x]

        def step(self, sequences):
            time.sleep(0.02)
            return [ls.Last(x) for [x] in sequences]

    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Slow(), path="/slow"),
            ls.LitServer(Told(), path="/told"),
            ls.LitServer(Pairs(max_batch_size=2, batch_timeout=5), path="/pairs"),
            ls.LitServer(Count(stream=True), path="/count"),
            ls.LitServer(Later(), path="/later"),
            ls.LitServer(Steps(), path="/steps"),
            ls.LitServer(
                ls.Pipeline(ls.step("/slow", name="first"), {"later": "/later"}), path="/both"
            ),
            ls.LitServer(ls.Pipeline(ls.map("/later")), path="/each"),
            port=0,
            OPTIONS
        )
"""


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector


@pytest.fixture
def traced(serve, collector):
    """Starts the models with these options, or with their traces sent to the collector."""

    def start(options="", env=None):
        options = options or f"otlp_endpoint={collector.url!r},"
        env = {"OTEL_BSP_SCHEDULE_DELAY": "20", **(env or {})}
        return serve(MODELS.replace("OPTIONS", options), env=env)

    return start


def test_a_request_is_a_tree_of_spans(traced, collector):
    server = traced()
    answer = server.post("/slow?a=1", json=1, headers={"traceparent": PARENT, "tracestate": "a=b"})
    assert answer.json() == 1
    # As a proxy would see it: nothing is said of it to the client.
    assert "traceparent" not in answer.headers
    collector.wait_for(6)
    (request,) = collector.named("POST /slow")
    assert (request.trace_id, request.parent, request.state) == (TRACE, SPAN, "a=b")
    assert request.kind == 2
    assert request.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/slow",
        "url.path": "/slow",
        "url.scheme": "http",
    }
    assert request.resource["service.name"] == "litplex"
    children = collector.children(request)
    assert children.keys() == {"queue", "worker"}
    queue, worker = children["queue"], children["worker"]
    assert request.start <= queue.start <= queue.end <= worker.start <= worker.end <= request.end
    assert worker.attributes == {"litplex.worker": "/slow#0"}
    assert worker.links == []
    stages = collector.children(worker)
    assert list(stages) == ["decode", "predict", "encode"]
    decode, predict, encode = stages.values()
    assert worker.start <= decode.start <= decode.end <= predict.start
    assert predict.end <= encode.start <= encode.end <= worker.end
    # What the model sleeps, and more only where the machine is busy.
    for stage, least in [(decode, 0.02), (predict, 0.04), (encode, 0.03)]:
        assert stage.seconds >= least - 0.001, stage
    path, headers = collector.requests[0]
    assert (path, headers["content-type"]) == ("/v1/traces", "application/x-protobuf")


def test_the_steps_of_a_pipeline_and_their_calls_are_spans_of_its_request(traced, collector):
    server = traced()
    assert server.post("/both", json=1).json() == {"later": 1}
    assert server.post("/both", json="raise").status_code == 500
    wait_until(lambda: len(collector.named("POST /both")) == 2)
    wait_until(lambda: len(collector.named("step first")) == 2)
    request, failed = collector.named("POST /both")
    ids = {span.span_id: span for span in collector.spans}

    def below(span):
        return sorted((each for each in ids.values() if each.parent == span.span_id), key=str)

    assert sorted(span.name for span in below(request)) == ["step first", "step parallel"]
    first, wrong = collector.named("step first")
    assert first.attributes == {"litplex.step": "first"}
    assert first.seconds >= 0.09 - 0.001
    assert wrong.parent == failed.span_id
    assert wrong.attributes["error.type"] == "500"
    (parallel,) = collector.named("step parallel")
    (later,) = below(parallel)
    assert later.name == "step later"
    # The spans of a call are below that of its step.
    for step, endpoint in [(first, "/slow"), (later, "/later")]:
        queue, worker = sorted(below(step), key=lambda span: span.name)
        assert (queue.name, queue.attributes) == ("queue", {"litplex.endpoint": endpoint})
        assert (worker.name, worker.attributes["litplex.worker"]) == ("worker", f"{endpoint}#0")


def test_a_map_is_one_step_of_a_trace_and_its_calls_are_below_it(traced, collector):
    server = traced()
    assert server.post("/each", json=[1, 2, 3]).json() == [1, 2, 3]
    wait_until(lambda: len(collector.named("POST /each")) == 1)
    wait_until(lambda: len(collector.named("worker")) == 3)
    (request,) = collector.named("POST /each")
    (step,) = [span for span in collector.spans if span.parent == request.span_id]
    assert step.name == "step map"
    below = sorted(span.name for span in collector.spans if span.parent == step.span_id)
    assert below == ["queue"] * 3 + ["worker"] * 3
    assert 'litplex_step_seconds_count{endpoint="/each",outcome="ok",step="map"} 1' in (
        server.client.get("/metrics").text
    )


def test_clients_choose_no_names_of_spans(traced, collector):
    server = traced()
    assert server.post("/%73lo%77", json=1).json() == 1
    assert server.client.request("BREW", "/slow").status_code == 405
    collector.wait_for(7)
    (request,) = collector.named("POST /slow")
    assert request.attributes["http.route"] == "/slow"
    assert request.attributes["url.path"] == "/%73lo%77"
    (other,) = collector.named("_OTHER /slow")
    assert other.attributes["http.request.method"] == "_OTHER"


def test_hooks_go_on_with_the_trace(traced, collector):
    server = traced()
    headers = {"traceparent": PARENT, "tracestate": "a=b"}
    told, state = server.post("/told", json=1, headers=headers).json()
    collector.wait_for(6)
    (request,) = collector.named("POST /told")
    assert told == f"00-{TRACE}-{request.span_id}-01"
    assert state == "a=b"
    # Of a client that is in no trace one begins here.
    told, state = server.post("/told", json=1, headers={"tracestate": "a=b"}).json()
    collector.wait_for(12)
    own = collector.named("POST /told")[1]
    assert told == f"00-{own.trace_id}-{own.span_id}-01"
    assert (own.parent, state) == ("", None)


def test_a_batch_links_its_requests(traced, collector):
    server = traced()
    parents = [PARENT, PARENT.replace("4bf9", "5bf9")]
    asking = [
        threading.Thread(
            target=server.post, args=("/pairs",), kwargs={"json": 1, "headers": {"traceparent": p}}
        )
        for p in parents
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    collector.wait_for(13)
    requests = collector.named("POST /pairs")
    assert len(requests) == 2
    (batch,) = collector.named("batch /pairs")
    assert batch.parent == ""
    assert batch.trace_id not in {request.trace_id for request in requests}
    assert batch.attributes == {"litplex.worker": "/pairs#0", "litplex.batch.size": 2}
    assert sorted(batch.links) == sorted((r.trace_id, r.span_id) for r in requests)
    for request in requests:
        worker = collector.children(request)["worker"]
        assert worker.links == [(batch.trace_id, batch.span_id)]
        # Each request and batch reads the clock of the wall for itself.
        slack = 10_000_000
        assert batch.start - slack <= worker.start <= worker.end <= batch.end + slack
        stages = collector.children(worker)
        assert list(stages) == ["decode", "predict", "encode"]
        assert stages["predict"].seconds >= 0.019


def test_the_span_of_a_stream_lasts_to_its_end(traced, collector):
    server = traced()
    assert server.post("/count", json=3, headers={"traceparent": PARENT}).text == "0\n1\n2\n"
    collector.wait_for(5)
    (request,) = collector.named("POST /count")
    stages = collector.children(collector.children(request)["worker"])
    assert list(stages) == ["decode", "predict"]
    assert stages["predict"].seconds >= 0.059


@pytest.mark.parametrize("path", ["/later", "/steps"])
def test_every_kind_of_model_reports_its_stages(traced, collector, path):
    server = traced()
    server.post(path, json=1, headers={"traceparent": PARENT})
    collector.wait_for(6)
    (request,) = collector.named(f"POST {path}")
    stages = collector.children(collector.children(request)["worker"])
    assert list(stages) == ["decode", "predict", "encode"]
    assert stages["predict"].seconds >= 0.019


GUARDED = """
    class Guarded(ls.LitAPI):
        def predict(self, x, context):
            return context.traceparent

        def authorize(self):
            pass

    if __name__ == "__main__":
        ls.run_servers(ls.LitServer(Guarded(), path="/guarded"), port=0, otlp_endpoint=COLLECTOR)
"""


def test_the_way_by_the_app_host_is_in_the_trace(serve, collector):
    pytest.importorskip("fastapi")
    server = serve(GUARDED.replace("COLLECTOR", repr(collector.url)))
    told = server.post("/guarded", json=1, headers={"traceparent": PARENT}).json()
    assert server.stop() == 0
    first, second = sorted(collector.named("POST /guarded"), key=lambda span: span.start)
    assert (first.trace_id, first.parent) == (TRACE, SPAN)
    assert collector.children(first) == {"POST /guarded": second}
    assert collector.children(second).keys() == {"queue", "worker"}
    assert told == f"00-{TRACE}-{second.span_id}-01"


LOST = """
    import os, pathlib

    class Dies(ls.LitAPI):
        def predict(self, x):
            if not pathlib.Path("died").exists():
                pathlib.Path("died").touch()
                os._exit(1)
            return x

    if __name__ == "__main__":
        ls.run_servers(ls.LitServer(Dies(), path="/dies"), port=0, otlp_endpoint=COLLECTOR)
"""


def test_a_lost_worker_is_in_the_trace(serve, collector):
    server = serve(LOST.replace("COLLECTOR", repr(collector.url)))
    assert server.post("/dies", json=1).json() == 1
    assert server.stop() == 0
    (request,) = collector.named("POST /dies")
    steps = [span for span in collector.spans if span.parent == request.span_id]
    steps.sort(key=lambda span: span.start)
    assert [span.name for span in steps] == ["queue", "worker", "queue", "worker"]
    assert all(before.end <= after.start for before, after in zip(steps, steps[1:]))


def test_a_request_that_its_client_does_not_sample_is_not_recorded(traced, collector):
    server = traced()
    unsampled = PARENT.replace("-01", "-00")
    # Unchanged, so that the services after this one do not record it either.
    told, _ = server.post("/told", json=1, headers={"traceparent": unsampled}).json()
    assert told == unsampled
    # Probes are not traced either.
    server.client.get("/health", headers={"traceparent": PARENT})
    server.post("/told", json=1, headers={"traceparent": PARENT})
    assert server.stop() == 0
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert len(collector.named("POST /told")) == 1
    assert not collector.named("GET")


def test_a_share_of_zero_keeps_the_traces_of_clients(traced, collector):
    server = traced(f"otlp_endpoint={collector.url!r}, trace_ratio=0,")
    told, _ = server.post("/told", json=1).json()
    assert told.endswith("-00")
    server.post("/told", json=1, headers={"traceparent": PARENT})
    assert server.stop() == 0
    (request,) = collector.named("POST /told")
    assert request.trace_id == TRACE


def test_errors_are_in_the_trace(traced, collector):
    server = traced()
    assert server.post("/slow", json="raise").status_code == 500
    assert server.post("/slow", content=b"{").status_code == 400
    assert server.stop() == 0
    failed, refused = collector.named("POST /slow")
    assert (failed.status, failed.attributes["error.type"]) == (2, "500")
    # It is the client's, and nothing is wrong with the server.
    assert (refused.status, refused.attributes["http.response.status_code"]) == (0, 400)


def test_the_last_spans_are_sent_at_the_end(traced, collector):
    server = traced(env={"OTEL_BSP_SCHEDULE_DELAY": "600000"})
    server.post("/told", json=1)
    assert collector.spans == []
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert len(collector.named("POST /told")) == 1


def test_variables_set_the_destination_of_traces(traced, collector):
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-team=ocr",
        "OTEL_SERVICE_NAME": "readers",
    }
    server = traced("compression=False,", env)
    server.post("/told", json=1)
    collector.wait_for(6)
    assert collector.spans[0].resource["service.name"] == "readers"
    assert {name.lower(): value for name, value in collector.requests[0][1].items()}[
        "x-team"
    ] == "ocr"


def test_a_missing_collector_costs_no_request(traced):
    with Collector() as gone:
        pass
    server = traced(f"otlp_endpoint={gone.url!r},")
    for n in range(3):
        assert server.post("/told", json=n).status_code == 200
        server.wait_for_line("the collector of traces takes no spans")
    assert server.stop() == 0
    assert server.output.count("takes no spans") == 1
