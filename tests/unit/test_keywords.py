"""The keywords as editors and type checkers see them."""

import pydoc
import re
import subprocess
import sys
import textwrap

import litplex as ls
from litplex import _keywords, _options, _server
from litplex.compat import _arguments
from litplex.compat import _keywords as _litserve_keywords

GOOD = """
    import litplex as ls

    class API(ls.LitAPI):
        def predict(self, x: int) -> int:
            return x

    class Tells(ls.Callback):
        pass

    one = ls.LitServer(
        API(max_batch_size=4, batch_timeout=0.01),
        path="/one",
        devices=[0, 1],
        workers_per_device=2,
        memory_limit="2GB",
        preload=["torch"],
        timeout=1.5,
        kill_after=False,
        env={"A": "1"},
        cpu_affinity=(0, 1),
        api_keys={"ann": "env:ANN"},
        log_level="debug",
    )
    two = ls.LitServer("a.py:API", args={"size": 3}, devices="auto", min_workers=0, max_workers=2)
    # As LitServe has it.
    three = ls.LitServer(
        [API(api_path="/a"), API(api_path="/b")],
        accelerator="cuda",
        workers_per_device={"/a": 1, "/b": 2},
        timeout=False,
        callbacks=[Tells()],
        middlewares=[],
        max_payload_size="10MB",
        fast_queue=True,
        healthcheck_path="/up",
    )
    search = ls.Pipeline(
        ls.step("/one", name="one", input={"x": "$request.x"}, timeout=2),
        ls.map("/two", over="$one", in_flight=3, dependency="soft", default=[]),
    )
    options: ls.ServerOptions = {"grace": 3, "compression": ["gzip"], "metrics_path": False}
    with ls.start(one, port=0, ready_timeout=5, **options) as running:
        url: str = running.url
    ls.run_servers(one, two, host="0.0.0.0", port=8000, cors_origins=["*"], request_id=True)
    three.run(port=8000, generate_client_file=False)
"""

# The comment of each wrong line has the kind of error.
BAD = """
    import litplex as ls

    class API(ls.LitAPI):
        def predict(self, x: int) -> int:
            return x

    ls.LitServer(API(), wrokers=2)  # [call-arg]
    ls.LitServer(API(), workers_per_device="2")  # [arg-type]
    ls.LitServer(API(), timeout="30")  # [arg-type]
    ls.LitServer(API(), log_level="loud")  # [arg-type]
    ls.LitServer(API(), devices="cuda:0")  # [arg-type]
    ls.LitServer(API(), pythonpath="lib")  # [arg-type]
    ls.LitServer(API(), port=8000)  # [call-arg]
    ls.LitServer(API)  # [arg-type]
    ls.LitSever(API())  # [attr-defined]
    API(max_batch_size="8")  # [arg-type]
    API(batch_size=8)  # [call-arg]
    server = ls.LitServer(API())
    ls.run_servers(server, gracee=3)  # [call-arg]
    ls.run_servers(server, cors_origins="*")  # [arg-type]
    ls.run_servers(server, compression=["gzp"])  # [list-item]
    ls.run_servers(server, port="8000")  # [arg-type]
    ls.run_servers([server])  # [arg-type]
    ls.start(server, request_id="yes")  # [arg-type]
    ls.start(server, timeout=3)  # [call-arg]
    server.run(tls_crt="a.pem")  # [call-arg]
    ls.step("/a", nmae="a")  # [call-arg]
    ls.parallel({"a": "/a"}, timeout="2")  # [arg-type]
    ls.switch({"true": "/a"}, dependency="weak")  # [arg-type]
"""


def mypy(directory, **programs):
    """Returns the errors in programs: for each, the lines and the kinds of error."""
    for name, text in programs.items():
        (directory / f"{name}.py").write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "mypy", "--cache-dir=cache"]
    done = subprocess.run(
        [*command, *(f"{name}.py" for name in programs)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
    )
    found = re.findall(r"(?m)^(\w+)\.py:(\d+): error: .*(\[[a-z-]+\])$", done.stdout)
    assert found, done.stdout + done.stderr
    return {
        program: [(int(line), kind) for name, line, kind in found if name == program]
        for program in programs
    }


def test_a_type_checker_knows_each_keyword(tmp_path):
    found = mypy(tmp_path, good=GOOD, bad=BAD)
    assert found["good"] == []
    lines = enumerate(BAD.splitlines(), 1)
    expected = [(number, line.split("# ")[1]) for number, line in lines if "  # " in line]
    assert found["bad"] == expected


def test_types_cost_nothing_without_a_type_checker():
    code = "import sys, litplex; litplex.LitServer; litplex.start; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = done.stdout.split()
    assert "litplex._start" in loaded
    assert not {"typing_extensions", "litplex._keywords", "litplex.compat"} & {*loaded}


def test_every_option_is_a_keyword():
    arguments = {"server": {"host", "port"}, "endpoint": {"path", "api", "pipeline"}}
    for scope, kind in [("server", ls.ServerOptions), ("endpoint", ls.EndpointOptions)]:
        assert {*kind.__annotations__, *arguments[scope]} == {*_options.names(scope)}
        assert kind.__dict__["__total__"] is False


def test_every_argument_of_litserve_is_a_keyword():
    own = {*_litserve_keywords.LitServerOptions.__annotations__} - {
        *_keywords.EndpointOptions.__annotations__
    }
    taken = {*_arguments._NOT_NEEDED, *_arguments._SERVER_OPTIONS, *_arguments._UNSUPPORTED}
    others = {"api_path", "callbacks", "loggers", "middlewares", "max_payload_size"}
    assert own == taken | others


def test_help_has_every_option_and_argument():
    for kind in (ls.ServerOptions, ls.EndpointOptions):
        text = pydoc.plain(pydoc.render_doc(kind))
        for name in kind.__annotations__:
            assert f" {name}: " in text
    for served in (_server.LitServer, _server.run_servers, ls.start, ls.LitAPI):
        text = pydoc.plain(pydoc.render_doc(served))
        assert "Args:" in text and "Raises:" in text
    assert {*ls.__all__} <= {*dir(ls)}
    for name in ls.__all__:
        assert getattr(ls, name).__doc__, name
