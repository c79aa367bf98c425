"""Which changes of a program's files are made in a running worker: this table is the specification.

Each case is a text and the replacement of a part of it. `None` stands for a safe change.
"""

import importlib.util
import itertools
import sys
import textwrap

import pytest
from litplex._worker.live.code import Plan
from litplex._worker.live.compare import NotSafe

PROGRAM = '''
import functools
from contextlib import contextmanager
from dataclasses import dataclass

import litplex as ls

SCALE = 2


def clean(text):
    return text.strip()


def load(name):
    return {"name": name}


def weights(name):
    return load(name)


@functools.lru_cache
def cached(n):
    return n + 1


def traced(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)

    return call


@contextmanager
def timed():
    yield 1


@dataclass
class Options:
    size: int = 1

    def area(self):
        return self.size * self.size


class Post:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, x):
        return x * self.scale

    def apply(self, x):
        return x * self.scale


class Net(dict):
    def forward(self, x):
        return x + 1


class Meta(type):
    pass


class Odd(metaclass=Meta):
    def turn(self):
        return 1


POST = Post(SCALE)


class Mixin:
    def shared(self, x):
        return x


class Model(Mixin, ls.LitAPI):
    stream = False
    limit = 10

    def __init__(self, size=1):
        super().__init__()
        self.size = size

    def setup(self, device):
        self.weights = weights("w")
        self.net = Net()
        self.warm = self._warm(3)

    def _warm(self, n):
        return n

    def decode_request(self, request):
        return request["x"]

    def predict(self, x):
        """Doubles."""
        return self.helper(x) * SCALE

    def helper(self, x, times=1):
        def inner(y):
            return y + times

        return inner(x)

    def unused(self):
        return 1

    @staticmethod
    def plain(x):
        return x

    @classmethod
    def made(cls):
        return cls.__name__

    @property
    def half(self):
        return self.size / 2

    @traced
    def followed(self, x):
        return x

    def counted(self):
        global COUNT
        COUNT = 1

    def up(self, x):
        return super().shared(x)

    def odd(self):
        return 1
'''

CLEAN = "def clean(text):\n    return text.strip()\n"
LOAD = 'def load(name):\n    return {"name": name}\n'


def body(head, before, after):
    """Returns the body of a method and its replacement, each a line."""
    return f"{head}\n        {before}", f"{head}\n        {after}"


def added(method):
    """Returns a place of `Model`, and the place with this method."""
    place = "    def unused(self):"
    return place, f"{textwrap.indent(method, '    ')}\n\n{place}"


SAFE = [
    ("a hook", "return self.helper(x) * SCALE", "return self.helper(x) * SCALE + 1"),
    ("several lines", 'return request["x"]', 'x = request["x"]\n        return x * 2'),
    ("a helper method", "return y + times", "return y + times + 100"),
    ("a function", "return text.strip()", "return text.lower()"),
    ("comments and lines", "SCALE = 2", "# Larger.\n\nSCALE = 2"),
    ("a static method", *body("def plain(x):", "return x", "return -x")),
    ("a class method", "return cls.__name__", "return cls.__name__ + '!'"),
    ("a property", "return self.size / 2", "return self.size / 3"),
    ("a context manager", "yield 1", "yield 2"),
    ("a method of a dataclass", "return self.size * self.size", "return self.size"),
    ("a method of a class of no library", *body("def apply(self, x):", "return x", "return -x")),
    ("a mixin of the model", *body("def shared(self, x):", "return x", "return -x")),
    ("super", "return super().shared(x)", "return super().shared(x) + 1"),
    ("a new method", *added("def more(self, x, *, by=2):\n    return x + by")),
    ("a new method with super", *added("def more(self, x):\n    return super().shared(x)")),
    (
        "a new function",
        "def load(name):",
        "def fresh(a, b=1):\n    return a + b\n\n\ndef load(name):",
    ),
    ("a removed method", "    def unused(self):\n        return 1\n", ""),
    ("a renamed method", "def unused(self)", "def other(self)"),
    (
        "a new import in a function",
        "return text.strip()",
        "import re\n    return re.sub('a', 'b', text)",
    ),
    ("a local class", "return text.strip()", "class A:\n        x = 1\n    return A.x"),
]

UNSAFE = [
    ("setup", 'weights("w")', 'weights("v")', "`Model.setup` changed"),
    ("a constructor", "self.size = size", "self.size = size + 1", "`Model.__init__` changed"),
    ("a constant", "SCALE = 2", "SCALE = 3", "the code of the module changed (line 8)"),
    ("a class attribute", "limit = 10", "limit = 11", "class `Model` changed"),
    (
        "a new class attribute",
        "    limit = 10",
        "    limit = 10\n    more = 1",
        "class `Model` changed",
    ),
    (
        "a new import",
        "import functools",
        "import functools\nimport re",
        "the code of the module changed",
    ),
    ("a new class", "SCALE = 2", "SCALE = 2\n\nclass New:\n    pass\n", "the code of the module"),
    (
        "the bases of a class",
        "class Model(Mixin, ls",
        "class Model(ls",
        "the code of the module changed",
    ),
    ("what setup uses", "return n\n", "return n + 1\n", "`Model.setup` uses it"),
    ("what setup uses deeply", 'return {"name": name}', "return name", "`weights` uses it"),
    ("a method that a library calls", "return x + 1", "return x + 2", "the base of `Net` uses it"),
    (
        "a special method",
        *body("def __call__(self, x):", "return x", "return -x"),
        "`Post.__call__` changed",
    ),
    (
        "a cached function",
        "    return n + 1",
        "    return n + 2",
        "has the decorator `functools.lru_cache`",
    ),
    (
        "an own decorator",
        *body("def followed(self, x):", "return x", "return -x"),
        "has the decorator `traced`",
    ),
    (
        "a decorator",
        "return function(*args)",
        "return function(*args) + 1",
        "the code of a module uses it",
    ),
    (
        "a new decorator",
        "    def unused(self)",
        "    @traced\n    def unused(self)",
        "the decorators of `Model.unused` changed",
    ),
    ("a metaclass", *body("def turn(self):", "return 1", "return 2"), "has a metaclass"),
    (
        "arguments",
        "def predict(self, x)",
        "def predict(self, x, context)",
        "the signature of `Model.predict` changed",
    ),
    (
        "an annotation",
        "def decode_request(self, request)",
        "def decode_request(self, request: int)",
        "the signature of",
    ),
    ("a default", "times=1", "times=2", "the signature of `Model.helper` changed"),
    ("a return annotation", "def plain(x):", "def plain(x) -> int:", "the signature of"),
    ("async", "def predict(self, x)", "async def predict(self, x)", "is `async` in only one"),
    (
        "a generator",
        "return self.helper(x) * SCALE",
        "yield self.helper(x)",
        "is a generator in only one",
    ),
    ("a docstring of a hook", '"""Doubles."""', '"""Triples."""', "the docstring of the hook"),
    ("globals", "COUNT = 1", "COUNT = 2", "assigns to variables outside of it"),
    (
        "a new hook",
        *added("def encode_response(self, output):\n    return output"),
        "`Model.encode_response` is new",
    ),
    ("a new special method", *added("def __len__(self):\n    return 1"), "`Model.__len__` is new"),
    (
        "a removed hook",
        '    def decode_request(self, request):\n        return request["x"]\n',
        "",
        "`Model.decode_request` was removed",
    ),
    ("a removed function", CLEAN, "", "`clean` was removed"),
    (
        "a method that hides another",
        *added("def shared(self, x):\n    return 1"),
        "hides another `shared`",
    ),
    (
        "a new default",
        *added("def more(self, x=SCALE):\n    return x"),
        "has a default that is not a constant",
    ),
    (
        "a new decorated method",
        *added("@traced\ndef more(self):\n    return 1"),
        "`Model.more` is new, and has a decorator",
    ),
    (
        "super in one version",
        *body("def odd(self):", "return 1", "return super().shared(1)"),
        "uses `super()`",
    ),
    (
        "the order",
        CLEAN + "\n\n" + LOAD,
        LOAD + "\n\n" + CLEAN,
        "the code of the module changed",
    ),
]

_numbers = itertools.count()


@pytest.fixture
def loaded(tmp_path):
    """Returns a function that writes and loads texts by the names of their modules, and returns the
    texts by path and the modules by name."""
    names = []

    def load(**texts):
        sys.path.insert(0, str(tmp_path))
        files, modules = {}, {}
        for name, text in texts.items():
            path = tmp_path / f"{name}.py"
            path.write_text(text)
            names.append(name)
            spec = importlib.util.spec_from_file_location(name, str(path))
            assert spec is not None and spec.loader is not None
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            files[str(path)], modules[name] = text.encode(), module
        sys.path.remove(str(tmp_path))
        return files, modules

    yield load
    for name in names:
        del sys.modules[name]


def changed(files, part, by):
    """Returns the files whose text has this part, with another one in its place."""
    found = {path: text for path, text in files.items() if part.encode() in text}
    assert len(found) == 1
    return {path: text.replace(part.encode(), by.encode(), 1) for path, text in found.items()}


@pytest.mark.parametrize(("name", "part", "by"), SAFE, ids=[case[0] for case in SAFE])
def test_a_safe_change_gives_what_loading_anew_gives(loaded, name, part, by):
    files, modules = loaded(live_program=PROGRAM)
    after = changed(files, part, by)
    api = modules["live_program"].Model()
    api.setup("cpu")
    Plan(files, after).apply()
    (text,) = after.values()
    _, fresh = loaded(live_fresh=text.decode())
    expected = fresh["live_fresh"].Model()
    expected.setup("cpu")
    assert results(modules["live_program"], api) == results(fresh["live_fresh"], expected)


def results(module, api):
    """Returns what the functions of the program give."""
    given = {
        "predict": api.predict(4),
        "decode": api.decode_request({"x": 3}),
        "plain": api.plain(5),
        "made": api.made(),
        "half": api.half,
        "up": api.up(7),
        "clean": module.clean(" Abc "),
        "area": module.Options(3).area(),
        "apply": module.POST.apply(4),
    }
    with module.timed() as value:
        given["timed"] = value
    given["names"] = sorted(name for name in vars(type(api)) if not name.startswith("__"))
    if hasattr(api, "more"):
        given["more"] = api.more(1)
    if hasattr(module, "fresh"):
        given["fresh"] = module.fresh(1)
    # Of a decorated function the wrapper is seen, which is no function of the file.
    lines = {
        name: f.__code__.co_firstlineno
        for name, f in vars(type(api)).items()
        if hasattr(f, "__code__") and name != "followed"
    }
    return given, lines


@pytest.mark.parametrize(("name", "part", "by", "reason"), UNSAFE, ids=[case[0] for case in UNSAFE])
def test_an_unsafe_change_is_refused_with_its_reason(loaded, name, part, by, reason):
    files, modules = loaded(live_program=PROGRAM)
    before = modules["live_program"].Model.predict.__code__
    with pytest.raises(NotSafe, match=r"\w") as refused:
        Plan(files, changed(files, part, by))
    assert reason in str(refused.value), name
    assert "\n" not in str(refused.value)
    assert modules["live_program"].Model.predict.__code__ is before


HELPERS = """
def clean(text):
    return text.strip()


def vocabulary():
    return ["a"]


def one():
    return 1
"""

IMPORTING = """
import live_helpers
from live_helpers import clean, one as first
from live_helpers import vocabulary as words

import litplex as ls

FIRST = first()


class Model(ls.LitAPI):
    def setup(self, device):
        self.words = words()

    def predict(self, x):
        return clean(x) + live_helpers.clean(x)
"""


def test_functions_change_for_the_modules_that_imported_them(loaded):
    files, modules = loaded(live_helpers=HELPERS, live_program=IMPORTING)
    Plan(files, changed(files, "return text.strip()", "return text.upper()")).apply()
    assert modules["live_program"].Model().predict("ab") == "ABAB"


@pytest.mark.parametrize(
    ("part", "by", "reason"),
    [
        ('["a"]', '["b"]', "`vocabulary` changed, and `Model.setup` uses it (line 6)"),
        ("return 1", "return 2", "`one` changed, and the code of a module uses it (line 10)"),
    ],
)
def test_uses_are_found_under_other_names_and_in_other_files(loaded, part, by, reason):
    files, _ = loaded(live_helpers=HELPERS, live_program=IMPORTING)
    with pytest.raises(NotSafe) as refused:
        Plan(files, changed(files, part, by))
    assert str(refused.value) == reason


def test_nothing_is_changed_if_one_of_several_files_is_not_safe(loaded):
    files, modules = loaded(live_helpers=HELPERS, live_program=IMPORTING)
    after = changed(files, "return text.strip()", "return text.upper()")
    after |= changed(files, "FIRST = first()", "FIRST = 0")
    with pytest.raises(NotSafe, match="the code of the module changed"):
        Plan(files, after)
    assert modules["live_program"].Model().predict(" a ") == "aa"


def test_a_text_that_is_not_python_raises(loaded):
    files, _ = loaded(live_program=PROGRAM)
    with pytest.raises(SyntaxError) as refused:
        Plan(files, changed(files, "SCALE = 2", "SCALE = ("))
    assert refused.value.filename in files


def test_a_function_that_was_replaced_is_not_touched(loaded):
    files, modules = loaded(live_program=PROGRAM)
    modules["live_program"].Model.unused = lambda self: 7
    with pytest.raises(NotSafe, match="is not the function that the file defines"):
        Plan(files, changed(files, *body("def unused(self):", "return 1", "return 2")))


def test_what_runs_ends_on_the_code_that_it_began_with(loaded):
    text = textwrap.dedent(
        """
        import litplex as ls


        class Model(ls.LitAPI):
            def predict(self, x):
                yield "old"
                yield "old"
        """
    )
    files, modules = loaded(live_program=text)
    api = modules["live_program"].Model(stream=True)
    bound, running = api.predict, api.predict(1)
    assert next(running) == "old"
    after = changed(files, 'yield "old"\n        yield "old"', 'yield "new"')
    Plan(files, after).apply()
    assert list(running) == ["old"]
    assert list(bound(1)) == ["new"]


def test_changes_follow_each_other(loaded):
    files, modules = loaded(live_program=PROGRAM)
    api = modules["live_program"].Model()
    for step in range(3):
        after = changed(
            files, "return text.strip()", f"# {step}\n    return text.strip() + '{step}'"
        )
        Plan(files, after).apply()
        files |= after
    assert modules["live_program"].clean(" a ") == "a210"
    assert api.plain(1) == 1
