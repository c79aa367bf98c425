"""A module of a package, run with ``python -m``: what it imports lies beside it."""

import sys

import litserve as ls

from .model import double


class Sent(ls.LitAPI):
    def predict(self, x):
        return {"output": double(x), "package": __package__}


class Made(Sent):
    """Cannot be sent: its workers run the program again."""

    def __init__(self, double, **options):
        super().__init__(**options)
        self.double = double

    def predict(self, x):
        return {"output": self.double(x), "package": __package__}


def main():
    apis = [Sent(api_path="/sent"), Made(lambda x: double(x), api_path="/made")]
    server = ls.LitServer(apis if "all" in sys.argv else apis[0], accelerator="cpu")
    server.app.get("/custom")(lambda: double(4))
    server.run(port=int(sys.argv[-1]), generate_client_file=False, num_api_servers=1)


if __name__ == "__main__":
    main()
