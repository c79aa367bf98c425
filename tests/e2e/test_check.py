"""``litplex check`` finds the errors of a program before a model is loaded."""

import os
import re
import subprocess

import pytest
from conftest import LITPLEX

MODELS = """
    import os, time

    print("an unrelated line")

    class OcrAPI(ls.LitAPI):
        def __init__(self, lang, size=3, **options):
            super().__init__(**options)
        def setup(self, device):
            open("was-set-up", "w").close()
        def predict(self, x):
            return x

    class Batches(ls.LitAPI):
        def __init__(self):
            super().__init__(max_batch_size=8)
        def predict(self, x):
            return x

    class ChatAPI(ls.LitAPI):
        def __init__(self):
            super().__init__(spec=ls.OpenAISpec())
        def predict(self, request):
            yield "hello"

    class Empty(ls.LitAPI):
        pass

    class Late(OcrAPI):
        def __init__(self):
            super().__init__("en")
        def setup(self, device):
            raise RuntimeError("no weights")

    class Alone(OcrAPI):
        loaded = "is-loaded"
        def __init__(self):
            super().__init__("en")
        def setup(self, device):
            open(self.loaded, "x").close()
            with open("set-up", "a") as file:
                file.write("x")
        def teardown(self):
            time.sleep(1)
            os.remove(self.loaded)

    class Large(Late):
        def setup(self, device):
            self.data = bytearray(os.urandom(1 << 20)) * 120

    class Slow(Late):
        def __init__(self):
            time.sleep(600)

    class Raises(Late):
        def __init__(self):
            raise ValueError("not today")
"""


@pytest.fixture
def check(tmp_path, script):
    """Checks endpoints, given as TOML; returns the exit status and the output."""
    script(MODELS, "models.py")
    (tmp_path / "needs.py").write_text("import no_such_package\n")
    (tmp_path / "half.py").write_text("class A:\n\n    def predict(self, x)\n        return x\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").write_text("#!/bin/sh\necho it is broken >&2; exit 7\n")
    (tmp_path / "broken").chmod(0o755)

    def run(endpoints, *args, options=""):
        tables = [f'[[endpoint]]\npath = "/{n}"\n{text}\n' for n, text in enumerate(endpoints)]
        (tmp_path / "litplex.toml").write_text("\n".join([options, *tables]))
        done = subprocess.run(
            [LITPLEX, "check", tmp_path / "litplex.toml", *args],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "LITPLEX_LOG": "warn"},
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_errors_of_the_start_are_found_without_loading(check, tmp_path):
    wrong = [
        ('api = "models.py:OcrApi"\nargs = { lang = "en" }', "did you mean `OcrAPI`?"),
        ('api = "models.py:OcrAPI"', "missing a required argument: 'lang'"),
        ('api = "models.py:Empty"\nargs = { max_batchsize = 2 }', "did you mean `max_batch_size`?"),
        ('api = "needs.py:A"', "there is no module `no_such_package`; install it for "),
        ('api = "models.py:Empty"', "predict"),
        ('api = "models.py:Late"\naccelerator = "cuda"\ndevices = [99]', "GPU"),
        ('api = "models.py:Late"\ncpu_affinity = [4000]', "`cpu_affinity` names core 4000"),
        ('api = "models.py:Late"\npython = "broken"', "exited with status 7\nit is broken"),
        ('api = "models.py:Late"\npython = "no-such-python"', "cannot start its interpreter"),
        ('api = "models.py:Late"\nlog_file = "folder"', "`log_file`: "),
        ('api = "models.py:Late"\napi_keys = { ann = "env:NOT_SET_HERE" }', "NOT_SET_HERE is not"),
        ('api = "models.py:Raises"', "loading it raised ValueError: not today"),
        ('api = "no_such_module:A"', "there is no module `no_such_module`"),
        ('api = "half.py:A"', "SyntaxError: expected ':' (half.py, line 3)"),
        ('api = "models.py:time"', "`api` is a module, not a litplex.LitAPI"),
        ('api = "models.py:Empty"\nargs = { spec = "openai" }', "`spec` must be OpenAISpec()"),
    ]
    # A bare name is looked up; these two have to be paths.
    wrong = [(text.replace('"broken"', '"./broken"'), says) for text, says in wrong]
    status, _, err = check([text for text, _ in wrong])
    assert status == 2
    for number, (_, says) in enumerate(wrong):
        errors = [part for part in err.split("\n  - ") if f"endpoint `/{number}`" in part]
        assert any(says in error for error in errors), (number, says, err)
    assert "in __init__" in err, "the program's own code that raised is shown"
    assert "/_worker/" not in err and "importlib" not in err, "and no code of the server"
    assert not (tmp_path / "was-set-up").exists()


def test_a_name_belongs_to_one_endpoint(check):
    late = 'api = "models.py:Late"\n'
    status, _, err = check([f'{late}name = "late"', f'{late}aliases = ["soon", "late"]'])
    assert status == 2
    assert "endpoints `/0` and `/1` are both called `late`; give one of them another `name`" in err


def test_a_directory_is_not_an_interpreter(check):
    status, _, err = check(['api = "models.py:Late"\npython = "folder"'])
    assert status == 2
    assert "names the directory" in err


def test_an_import_that_does_not_end_is_ended(check):
    status, _, err = check(['api = "models.py:Slow"'], "--timeout", "2")
    assert status == 2
    assert "takes more than 2 s" in err


def test_options_that_differ_from_defaults_are_shown_and_all_with_all(check, tmp_path):
    endpoints = [
        'api = "models.py:OcrAPI"\nargs = { lang = "en" }\ntimeout = 5',
        'api = "models.py:Batches"',
        'api = "models.py:ChatAPI"',
    ]
    status, out, err = check(endpoints)
    assert (status, err) == (0, "")
    ocr, batches, chat = out.split("POST /")[1:4]
    settings = [line.split()[0] for line in ocr.splitlines()[1:] if line.startswith("  ")]
    assert settings == ["name", "model", "python", "cwd", "timeout", "threads"]
    assert re.search(r"  threads +\d", ocr), ocr
    assert "name                     OcrAPI" in ocr
    assert "max_batch_size           8" in batches
    assert "clients ask at /v1/chat/completions; they do not reach this path" in chat
    assert "/v1/models" in out
    assert not (tmp_path / "was-set-up").exists()
    status, everything, _ = check(endpoints, "--all")
    assert status == 0
    assert everything.count("  heartbeat  ") == 3
    assert "heartbeat" not in out


def test_load_runs_setup_and_reports_failures(check, tmp_path):
    fine = ['api = "models.py:OcrAPI"\nargs = { lang = "en" }\nmin_workers = 0\nmax_workers = 2']
    status, out, _ = check(fine, "--load")
    assert (status, "loaded: all endpoints" in out) == (0, True)
    assert (tmp_path / "was-set-up").exists()
    status, _, err = check([*fine, 'api = "models.py:Late"'], "--load")
    assert status == 3
    assert "endpoint `/1`: setup raised RuntimeError: no weights" in err


def test_load_takes_models_that_sleep_in_turn_and_finds_those_that_fail(check, tmp_path):
    sleeps = "min_workers = 0\nmax_workers = 2"
    alone = f'api = "models.py:Alone"\n{sleeps}'
    status, out, err = check([alone] * 3, "--load")
    assert (status, "loaded: all endpoints" in out) == (0, True), err
    assert (tmp_path / "set-up").read_text() == "xxx"
    assert not (tmp_path / "is-loaded").exists()
    status, _, err = check([alone, f'api = "models.py:Late"\n{sleeps}'], "--load")
    assert (status, "endpoint `/1`: setup raised RuntimeError: no weights" in err) == (3, True), err


def test_load_keeps_to_the_budget(check):
    large = 'api = "models.py:OcrAPI"\nargs = { lang = "en" }\nmemory = "400MB"'
    for sleeps in ("", "\nmin_workers = 0\nmax_workers = 1"):
        status, _, err = check([large + sleeps], "--load", options='memory_budget = "300MB"\n')
        assert status == 3
        assert "it needs 0.40 GB beside 0.00 GB, of 0.30 GB" in err, err
    undeclared = 'api = "models.py:Large"\nmin_workers = 0\nmax_workers = 1'
    status, _, err = check([undeclared], "--load", options='memory_budget = "100MB"\n')
    assert status == 3
    assert re.search(r"error: endpoint `/0`: .*it needs 0\.1\d GB beside 0\.00 GB", err), err
