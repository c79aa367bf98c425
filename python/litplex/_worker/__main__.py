"""Started as ``python …/litplex/_worker`` by the server, in any interpreter and environment.

It makes this package importable as ``litplex`` without its directory on ``sys.path``: packages
installed beside it must not leak into an endpoint's own environment.
"""

import sys

# First, and in the syntax of older versions: they cannot read the rest of this package.
if sys.version_info < (3, 9):  # noqa: UP036
    sys.exit(
        "litplex needs Python 3.9 or later, and %s is Python %s; name another one in `python`"  # noqa: UP031
        % (sys.executable, sys.version.split()[0])
    )

import gc
import importlib.util
import os


def import_package():
    # type: () -> None
    worker = os.path.dirname(os.path.abspath(__file__))
    package = os.path.dirname(worker)
    # Running a directory puts it on the path; user code must not find our modules there.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != worker]
    # At the end, for processes that multiprocessing starts: they get this path, and run the script.
    sys.path.append(os.path.join(worker, "children"))
    spec = importlib.util.spec_from_file_location(
        "litplex", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules["litplex"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    # What is imported here lives as long as the process: no collection, then or while the model
    # loads, walks it.
    gc.disable()
    if "litplex" not in sys.modules:
        import_package()
    if sys.argv[1:] == ["--check"]:
        from litplex._worker._check import main
    else:
        from litplex._worker._process import main

    gc.freeze()
    gc.enable()
    sys.exit(main())
