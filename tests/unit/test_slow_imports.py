"""The imports of a model that a worker reports."""

import pytest

SLOW = "import time; time.sleep(0.02)\n"


def packages(tmp_path, **modules):
    """Writes modules into a directory of packages; returns the order that finds them there."""
    directory = tmp_path / "lib" / "site-packages"
    directory.mkdir(parents=True)
    for name, text in modules.items():
        (directory / f"{name}.py").write_text(text, encoding="utf-8")
    return {"pythonpath": [str(directory)]}


def reported(worker, model, order):
    traits = worker(model, order=order, imports=True).traits
    # Those of the beginning of each model may be slow, too.
    return [each for each in traits["imports"] if "site-packages" in each["file"]]


def names(imports):
    return [each["module"] for each in imports]


def test_slow_imports_of_packages_are_reported_in_order(worker, tmp_path):
    order = packages(tmp_path, outer=f"import inner\n{SLOW}", inner=SLOW, quick="", late=SLOW)
    (tmp_path / "own.py").write_text(SLOW)
    model = """
        import own, outer, quick

        class API(ls.LitAPI):
            def setup(self, device):
                import late

            def predict(self, x):
                return x
    """
    outer, late = imports = reported(worker, model, order)
    assert names(imports) == ["outer", "late"]
    assert outer["file"] == str(tmp_path / "lib" / "site-packages" / "outer.py")
    assert outer["seconds"] > late["seconds"] >= 0.02


@pytest.mark.parametrize(("changes", "expected"), [(False, ["sets", "reads"]), (True, ["sets"])])
def test_imports_after_a_change_of_variables_are_not_reported(worker, tmp_path, changes, expected):
    order = packages(tmp_path, sets=f"import os; os.environ['OF'] = 'sets'\n{SLOW}", reads=SLOW)
    model = """
        import sets
        if {changes}:
            os.environ["MODE"] = "fast"
        import reads

        class API(ls.LitAPI):
            def predict(self, x):
                return x
    """
    model = model.replace("{changes}", str(changes))
    assert names(reported(worker, model, order)) == expected


def test_imports_are_not_reported_unless_the_server_asks(worker):
    model = """
        class API(ls.LitAPI):
            def predict(self, x):
                return x
    """
    assert "imports" not in worker(model).traits
