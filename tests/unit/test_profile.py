"""A model and a server carry the profile of the framework that they were written for."""

import pickle
import subprocess
import sys
import textwrap

import litplex as ls
import pytest
from litplex import _api, _keys, _server, compat
from litplex._profile import NATIVE
from litplex.compat import server as litserve_server
from litplex.compat._profile import LITSERVE

PROGRAM = """
    import sys
    import litplex as ls
    from litplex import _capture, _server
    from litplex._apphost import _manifest

    class API(ls.LitAPI):
        max_batch_size = 4

        async def predict(self, inputs):
            return inputs

    servers = [
        ls.LitServer(API(), "/a", timeout=5, workers_per_device=2, devices=1, env={"A": "1"}),
        ls.LitServer(API(spec=None), "/b", api_keys={"ann": "env:ANN"}),
    ]
    options = {"grace": 3, "metrics_path": False}
    given, _ = _server.checked_options(servers, "0.0.0.0", 8000, options)
    _server.program_of(servers, given, _manifest.manifest_of(servers, given))
    _server.start_binary, ls.start, ls.MCP("Echoes.", name="echo"), ls.OpenAISpec()
    print(*sys.modules)
"""

LOADED = """
    import sys

    class API(ls.LitAPI):
        def predict(self, x):
            return [name for name in sys.modules if name.startswith(x)]
"""

# The same model for both frameworks: `{ls}` is its module.
MODEL = """
    from litplex import compat

    class API({ls}.LitAPI):
        max_concurrency = 7

        def cost(self, a, b, c):
            return "a method of the program"

        {predict} predict(self, x):
            return x.encode()
"""


@pytest.mark.parametrize(
    ("first_line", "loads_litserve"),
    [("", False), ("import litplex.compat", True), ("import litplex.compat._profile", True)],
)
def test_a_program_of_litplex_loads_nothing_of_litserve(tmp_path, first_line, loads_litserve):
    program = tmp_path / "server.py"
    program.write_text(f"{first_line}\n{textwrap.dedent(PROGRAM)}")
    command = [sys.executable, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    loaded = done.stdout.split()
    assert {"litplex._server", "litplex._profile"} <= {*loaded}
    foreign = [name for name in loaded if name.startswith(("litplex.compat", "litserve"))]
    assert bool(foreign) is loads_litserve


def test_its_workers_load_nothing_of_litserve_and_of_the_app_host(worker):
    server = worker(LOADED)
    for number, prefix in enumerate(["litplex.compat", "litserve", "litplex._apphost"]):
        server.request(number, prefix)
    assert server.answers(3) == {number: (200, []) for number in range(3)}
    server.request(3, "litplex._worker.")
    assert len(server.answers(1)[3][1]) > 5, "the model sees the modules of its worker"


@pytest.mark.parametrize("predict", ["def", "async def"])
def test_bytes_of_a_model_for_litserve_are_text(worker, predict):
    server = worker(MODEL.format(ls="compat", predict=predict))
    assert server.traits["cost"] is False
    server.request(1, "a")
    assert server.answers(1) == {1: (200, "a")}


def test_a_server_of_litserve_gives_its_profile_to_models_of_litplex():
    api = _Plain()
    compat.LitServer(api)
    assert pickle.loads(pickle.dumps(api))._litplex_profile == LITSERVE
    own = _Plain()
    ls.LitServer(own)
    assert own._litplex_profile is NATIVE


class _Plain(ls.LitAPI):
    def predict(self, x):
        return x


class _Awaited(compat.LitAPI):
    def __init__(self, **options):
        super().__init__(enable_async=True, **options)

    async def predict(self, x):
        return x


def test_a_model_for_litserve_has_its_concurrency_in_its_workers():
    for given, expected in [({}, 1024), ({"max_concurrency": 3}, 3)]:
        api = _Awaited(**given)
        compat.LitServer(api)
        assert _api.max_concurrency_of(pickle.loads(pickle.dumps(api))) == expected
    # What the program writes there itself is its own.
    api = _Awaited(max_batch_size=2)
    api.max_concurrency = 9
    compat.LitServer(api)
    assert _api.max_concurrency_of(api) is None


def test_the_timeout_of_litserve_ends_when_a_worker_begins():
    assert ls.LitServer(_Plain(), timeout=5).options == {"timeout": 5}
    server = compat.LitServer(_Plain(), timeout=5, max_payload_size="1KB")
    day = 24 * 3600
    assert server.options == {"queue_timeout": 5, "timeout": day, "max_body_bytes": 1000}
    # Of the arguments of LitServe that litplex lacks, it takes the meaning alone.
    native = ls.LitServer(_Plain(), timeout=5, max_payload_size="1KB")
    assert native.options == {"timeout": 5, "max_body_bytes": 1000}


def test_the_profile_of_the_first_server_applies_to_all():
    first, second = compat.LitServer(_Plain(), api_path="/a"), ls.LitServer(_Plain(), "/b")
    given, writes_client = _server.checked_options([first, second], None, None, {})
    assert (given["host"], writes_client) == ("0.0.0.0", True)
    assert _server.program_of([first, second], given)["presentation"]["index"] == "litserve running"
    given, writes_client = _server.checked_options([second, first], None, None, {})
    assert ("host" in given, writes_client) == (False, False)
    assert _server.program_of([second, first], given)["presentation"] is None


def test_a_program_for_litserve_may_set_its_key(monkeypatch):
    monkeypatch.setenv("LIT_SERVER_API_KEY", "of the environment\n")
    monkeypatch.setattr(litserve_server, "LIT_SERVER_API_KEY", "of the program")
    assert _keys.key("LIT_SERVER_API_KEY", LITSERVE) == "of the program"
    assert _keys.environment(LITSERVE)["LIT_SERVER_API_KEY"] == "of the program"
    assert _keys.key("LIT_SERVER_API_KEY", NATIVE) == "of the environment"
