"""Started as ``python …/litplex/_apphost`` by the server, in the interpreter of the program."""

import gc
import os
import runpy
import sys

if __name__ == "__main__":
    # What is imported here lives as long as the process: no collection walks it.
    gc.disable()
    _own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != _own]
    if "litplex" not in sys.modules:
        # As in workers: packages installed beside litplex must not leak into the program.
        _worker = os.path.join(os.path.dirname(_own), "_worker", "__main__.py")
        runpy.run_path(_worker)["import_package"]()
    from litplex._apphost._process import main

    gc.freeze()
    gc.enable()
    sys.exit(main())
