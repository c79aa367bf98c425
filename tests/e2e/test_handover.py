"""The handover of instances and interpreters to workers."""

import subprocess
import sys

import pytest
from conftest import LITPLEX, Server

CLASSES = """
    import sys, threading

    class Add(ls.LitAPI):
        def __init__(self, amount, **kwargs):
            super().__init__(**kwargs)
            self.amount = amount
        def setup(self, device):
            self.lock = threading.Lock()
            self.function = lambda x: x + self.amount
        def predict(self, x):
            with self.lock:
                return self.function(x)
"""


@pytest.mark.parametrize(
    ("name", "program", "answer"),
    [
        ("guarded", "if __name__ == '__main__':\n    ls.LitServer(Add(2)).run(port=0)", 42),
        ("unguarded", "ls.LitServer(Add(2)).run(port=0)", 42),
        (
            "lambda in the constructor",
            "class F(Add):\n"
            "    def __init__(self):\n"
            "        super().__init__(3)\n"
            "        self.twice = lambda x: 2 * x\n"
            "    def predict(self, x):\n"
            "        return self.twice(super().predict(x))\n"
            "ls.LitServer(F()).run(port=0)",
            86,
        ),
        (
            "class under the guard",
            "if __name__ == '__main__':\n"
            "    class G(Add):\n"
            "        pass\n"
            "    ls.LitServer(G(4)).run(port=0)",
            44,
        ),
        (
            "attribute set after construction",
            "if __name__ == '__main__':\n"
            "    api = Add(0)\n"
            "    api.amount = 5\n"
            "    ls.LitServer([Add(1, api_path='/other'), api]).run(port=0)",
            45,
        ),
        (
            "arguments of the program",
            "if __name__ == '__main__':\n"
            "    amount = len(sys.argv)\n"
            "    api = Add(0)\n"
            "    api.function = lambda x: x\n"
            "    api.amount = amount\n"
            "    ls.LitServer(api).run(port=0)",
            41,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_an_instance_reaches_its_worker(run, script, name, program, answer):
    path = script(CLASSES)
    path.write_text(path.read_text() + program + "\n")
    server = run([sys.executable, path], kind=Server).wait_until_ready()
    assert server.post("/predict", json=40).json() == answer


def test_a_class_of_a_module_beside_the_script(serve, script):
    script(CLASSES, "models.py")
    server = serve("""
        from models import Add
        if __name__ == "__main__":
            ls.LitServer(Add(2)).run(port=0)
    """)
    assert server.post("/predict", json=40).json() == 42


@pytest.fixture(scope="session")
def environments(tmp_path_factory):
    """Two virtual environments that hold versions of one package that exclude each other."""
    directory = tmp_path_factory.mktemp("environments")
    made = {}
    for version in ("1.15.0", "1.16.0"):
        path = directory / version
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
        packages = next((path / "lib").glob("python*/site-packages"))
        (packages / "ocr_engine.py").write_text(f"__version__ = {version!r}\n")
        made[version] = path / "bin/python"
    return made


VERSION = """
    class Version(ls.LitAPI):
        def setup(self, device):
            import ocr_engine
            self.version = ocr_engine.__version__
        def predict(self, x):
            return self.version
"""


def test_endpoints_have_environments_that_exclude_each_other(serve, environments):
    old, new = environments.values()
    server = serve(
        VERSION
        + f"""
    if __name__ == "__main__":
        ls.run_servers(
            ls.LitServer(Version(), path="/old", python={str(old)!r}),
            ls.LitServer(Version(), path="/new", python={str(new)!r}),
            port=0,
        )
    """
    )
    assert server.post("/old", json=0).json() == "1.15.0"
    assert server.post("/new", json=0).json() == "1.16.0"


def test_an_environment_sees_nothing_of_the_programs_own(serve, environments):
    """The program runs where pytest is installed; the endpoint's environment has none."""
    python = str(environments["1.16.0"])
    server = serve(f"""
        class Look(ls.LitAPI):
            def predict(self, name):
                import importlib.util
                return importlib.util.find_spec(name) is not None

        if __name__ == "__main__":
            ls.LitServer(Look(), python={python!r}).run(port=0)
    """)
    answers = {name: server.post("/predict", json=name).json() for name in ("pytest", "ocr_engine")}
    assert answers == {"pytest": False, "ocr_engine": True}


def test_endpoints_of_a_file(run, script, tmp_path, environments):
    script(VERSION, "version.py")
    script(CLASSES, "models.py")
    (tmp_path / "litplex.toml").write_text(f"""
        port = 0
        [[endpoint]]
        path = "/version"
        api = "version.py:Version"
        python = "{environments["1.15.0"]}"
        env = {{ COLOUR = "blue" }}
        [[endpoint]]
        path = "/add"
        api = "models:Add"
        args = {{ amount = 2 }}
        workers_per_device = 2
    """)
    server = run([LITPLEX, "serve", "litplex.toml"], kind=Server).wait_until_ready()
    assert server.post("/version", json=0).json() == "1.15.0"
    assert server.post("/add", json=40).json() == 42
    assert len(server.workers()) == 3


def test_an_endpoint_named_by_reference(serve, script):
    script(CLASSES, "models.py")
    server = serve("""
        ls.LitServer("models.py:Add", path="/add", args={"amount": 1}, env={"A": "b"}).run(port=0)
    """)
    assert server.post("/add", json=1).json() == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ('"models.py:Missing"', "`models.py` has no `Missing`; it has `Add`"),
        ('"nosuchmodule:Add"', "there is no module `nosuchmodule`; install it for "),
        ('"models.py:Add"', "missing a required argument: 'amount'"),
        ('"models.py:Add", python="nosuchpython"', "create the environment or correct `python`"),
    ],
)
def test_an_invalid_reference_is_reported(serve, script, options, says):
    script(CLASSES, "models.py")
    server = serve(f"ls.LitServer({options}, path='/add').run(port=0)", ready=False)
    assert server.wait() == 3
    assert "endpoint `/add`" in server.output
    assert says in server.output
    assert "Traceback" not in server.output
