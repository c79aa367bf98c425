"""The interface of LitServe that programs and their tests use without a server."""

import asyncio
import logging
import pickle
import sys
import warnings

import litplex
import pytest
from litplex import _heavy
from litplex.compat import LitAPI, LitServer, __main__, cli, connector, loggers, loops, mcp, utils
from litplex.compat.callbacks.defaults import metric_callback
from litplex.compat.loops import base, continuous_batching_loop, simple_loops, streaming_loops
from litplex.compat.transport import base as transport


class Plain(LitAPI):
    def predict(self, x):
        return x


class Chat(LitAPI):
    def predict(self, x):
        yield x


class Loading(Plain):
    def setup(self, device):
        pass


def test_hooks_of_a_spec_can_be_called_without_a_server():
    api = Chat()
    api.pre_setup()
    assert (api.spec, api.stream, api.api_path) == (None, False, "/predict")
    api.pre_setup(spec=litplex.OpenAISpec())
    assert (api.stream, api.api_path) == (True, "/v1/chat/completions")
    assert list(api.encode_response(["a"])) == [{"role": "assistant", "content": "a"}]
    with pytest.raises(ValueError, match="`spec` must be"):
        api.pre_setup(spec="openai")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("output", "kind", "parts"),
    [("ab", "string", ["a", "b"]), ({"a": 1, "b": 2}, "dict", ["a", "b"]), ({1}, "set", [1])],
)
def test_a_batch_that_is_not_a_list_causes_a_warning(output, kind, parts):
    with pytest.warns(UserWarning, match=f"returned a {kind} instead of a list"):
        assert Plain(max_batch_size=2).unbatch(output) == parts


def test_an_output_that_cannot_be_split_is_refused():
    with pytest.raises(ValueError, match="A NoneType cannot be split"):
        Plain(max_batch_size=2).unbatch(None)


def test_loading_in_the_constructor_causes_a_warning(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Plain()
        monkeypatch.setattr(_heavy, "_HEAVY_SECONDS", 0)
        Loading()
    with pytest.warns(RuntimeWarning, match="heavy processing inside the constructor"):
        Plain()


def test_taken_paths_are_refused_when_a_server_is_created():
    with pytest.raises(ValueError, match="api_path /a is already in use by another endpoint"):
        LitServer([Plain(api_path="/a"), Plain(api_path="/a")])
    with pytest.raises(ValueError, match="api_path /health is already in use by LitServe healthch"):
        LitServer([Plain(api_path="/health"), Plain(api_path="/info")])
    LitServer(Plain(api_path="/health"), healthcheck_path="/healthz")


def test_a_path_of_litplex_may_move_until_it_runs():
    litplex.LitServer(Plain(api_path="/health"))


def test_a_path_that_needs_another_base_url_causes_a_warning():
    with pytest.warns(UserWarning, match=r"Custom API path detected: /v2/chat.*ends in `/v2`"):
        LitServer(Chat(spec=litplex.OpenAISpec(), api_path="/v2/chat/completions"))


@pytest.mark.parametrize("devices", ["cpu", ["cpu", "cuda:0"], 1.5])
def test_devices_are_numbers(devices):
    with pytest.raises(ValueError, match="devices must be an integer or a list of integers"):
        LitServer(Plain(), accelerator="cuda", devices=devices)


def test_a_server_has_the_attributes_of_litserve(monkeypatch):
    api = Plain()
    server = LitServer(api, accelerator="cpu", healthcheck_path="/well", max_payload_size=1e6 / 2)
    assert server.lit_api is api
    assert (server.healthcheck_path, server.info_path) == ("/well", "/info")
    assert (server.devices, server.options["max_body_bytes"]) == (["cpu"], 500_000)
    on_gpus = LitServer(Plain(), accelerator="cuda", devices=[1, 2])
    assert on_gpus.devices == [["cuda:1"], ["cuda:2"]]
    assert LitServer(Plain(), accelerator="cuda", devices=1).devices == [["cuda:0"]]
    with pytest.warns(DeprecationWarning, match="'max_batch_size' and 'batch_timeout'"):
        LitServer(Plain(), max_batch_size=4)


def test_async_models_have_the_concurrency_of_litserve():
    class Awaited(LitAPI):
        async def predict(self, x):
            return x

    for api, most in (
        (Awaited(enable_async=True), 1024),
        (Awaited(enable_async=True, max_concurrency=3), 3),
        (Awaited(enable_async=True, max_batch_size=4), None),
        (Awaited(), None),
    ):
        LitServer(api)
        assert api.max_concurrency == most


def test_an_accelerator_is_detected(monkeypatch):
    monkeypatch.setattr(connector, "check_cuda_with_nvidia_smi", lambda: 3)
    for asked in ("auto", "gpu", None):
        found = connector._Connector(asked)
        assert (found.accelerator, found.devices) == ("cuda", 3)
    monkeypatch.setattr(connector, "check_cuda_with_nvidia_smi", lambda: 0)
    monkeypatch.setattr("sys.platform", "linux")
    assert connector._Connector("auto").accelerator == "cpu"
    assert connector._Connector("CPU", 2).devices == 2
    with pytest.raises(ValueError, match="accelerator must be one of"):
        connector._Connector("tpu")


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [
        (base, "collate_requests", r"no `litserve\.loops\.base\.collate_requests`: leave out"),
        (simple_loops, "BatchedLoop", "leave out `loop`"),
        (streaming_loops, "StreamingLoop", "leave out `loop`"),
        (continuous_batching_loop, "ContinuousBatchingLoop", "ContinuousAPI"),
        (transport, "MessageTransport", "sockets of its own"),
        (loggers, "_LoggerConnector", "give LitServer `loggers`"),
        (cli, "_ensure_lightning_installed", "litplex installs nothing"),
        (utils, "add_ssl_context_from_env", "reads the variables itself"),
    ],
)
def test_internal_names_raise_when_they_are_used(module, name, says):
    known = getattr(module, name)
    assert known is getattr(module, name)
    derived = type("Derived", (known,), {})
    for use in (known, derived):
        with pytest.raises(NotImplementedError, match=says):
            use(1, a=2)
    with pytest.raises(AttributeError, match=r"has no attribute .no_such"):
        module.no_such  # noqa: B018


def test_a_custom_loop_is_refused_when_it_is_imported():
    with pytest.raises(ImportError, match="ContinuousAPI"):
        loops.LitLoop  # noqa: B018


async def stream(*items):
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


def test_streams_are_read_in_step():
    async def read(*streams):
        return [items async for items in utils.azip(*streams)]

    assert asyncio.run(read(stream(1, 2), stream("a"))) == [(1, "a")]
    with pytest.raises(ValueError, match="boom"):
        asyncio.run(read(stream(1, 2), stream("a", ValueError("boom"))))


def test_a_function_is_called_after_a_stream():
    called = []

    async def read():
        after = utils.call_after_stream(stream(1, 2), lambda *a, **b: called.append((a, b)), 3, c=4)
        return [item async for item in after]

    assert (asyncio.run(read()), called) == ([1, 2], [((3,), {"c": 4})])


def test_exceptions_are_pickled():
    error = pickle.loads(utils.dump_exception(litplex.HTTPException(418, "tea")))
    assert (error.status_code, error.detail) == (418, "tea")


def test_records_of_callbacks_go_to_the_logger_of_litserve(capsys):
    logger = logging.getLogger("litserve")
    before = logger.level, logger.handlers[:]
    seen = logging.getLogger(metric_callback.__name__)
    try:
        utils.configure_logging()
        metric_callback.RequestTracker().on_request(active_requests=None)
        assert capsys.readouterr().out.endswith(": Active requests: None\n")
        utils.set_log_level("ERROR")
        seen.warning("too low")
        assert capsys.readouterr().out == ""
    finally:
        level, logger.handlers[:] = before
        logger.setLevel(level)


def test_an_mcp_returns_its_tool():
    offer = mcp.MCP(description="Echoes.", input_schema={"name": "string"})
    with pytest.raises(RuntimeError, match="MCP is not connected to a LitAPI"):
        offer.as_tool()
    Plain(mcp=offer, api_path="/v1/echo")
    tool = offer.as_tool()
    assert (tool.name, tool.endpoint, tool.description) == ("v1_echo", "/v1/echo", "Echoes.")
    assert tool.inputSchema == {"name": "string"}
    named = mcp.MCP("Echoes.", name="echo")
    Plain(mcp=named)
    assert (named.as_tool().name, named.as_tool().inputSchema["required"]) == ("echo", ["request"])


def test_the_command_takes_the_arguments_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["litserve", "--help"])
    assert __main__.main() == 0
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("usage:") == 2
