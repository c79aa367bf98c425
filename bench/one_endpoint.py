"""A server of one endpoint at `/m`, for measurements of its workers."""

import http.client
import json
import subprocess
import time


class Server:
    """A server of the endpoint; the `litplex` that is on the PATH serves.

    Args:
        directory: Where its files are written.
        model: The text of a file with a class `Model`.
        options: Further options of the endpoint, by name.
    """

    def __init__(self, directory, model, options):
        (directory / "model.py").write_text(model)
        endpoint = {"path": "/m", "api": "model.py:Model", **options}
        lines = [f"{name} = {json.dumps(value)}" for name, value in endpoint.items()]
        (directory / "litplex.toml").write_text("\n".join(["port = 0", "[[endpoint]]", *lines]))
        self._log = directory / "log"
        with self._log.open("w") as log:
            command = ["litplex", "serve", directory / "litplex.toml"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.wait_until(lambda: "ready: all endpoints" in self._log.read_text())
        text = self._log.read_text()
        self.address = text.partition("listening on http://")[2].split()[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def wait_until(self, condition):
        """Waits until a function returns something that is true."""
        while not condition():
            if self.process.poll() is not None:
                raise SystemExit(self._log.read_text())
            time.sleep(0.05)

    def ask(self):
        """Sends a request; returns the seconds until its response, and the response."""
        begin = time.perf_counter()
        connection = http.client.HTTPConnection(self.address, timeout=600)
        connection.request("POST", "/m", "1", {"content-type": "application/json"})
        answer = connection.getresponse().read()
        return time.perf_counter() - begin, answer
