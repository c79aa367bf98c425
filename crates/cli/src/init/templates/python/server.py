"""The model of this project: it counts words. Replace it with yours.

    litplex check litplex.toml            show all errors, or what would be served
    litplex serve litplex.toml            serve until Ctrl-C
    litplex call /words "a fine day"      call it, in another terminal

`python server.py` serves the same model, with the options below in place of those in litplex.toml.
"""

import litplex as ls


class WordsAPI(ls.LitAPI):
    """Counts the words of a text."""

    # An example of a request and of a response. /docs, /openapi.json and `litplex call` use them.
    # Types are checked too if `decode_request` has a pydantic model: pip install "litplex[typed]".
    request_example = {"text": "a fine day"}
    response_example = {"words": 3}

    def setup(self, device):
        """Loads the model, once in each worker. `device` is "cpu", "cuda:0", ..."""
        self.separator = None  # whitespace

    def decode_request(self, request):
        """Returns the input of the model from the body of a request."""
        if not isinstance(request, dict) or not isinstance(request.get("text"), str):
            raise ls.HTTPException(422, "expected a field `text` with a text")
        return request["text"]

    def predict(self, texts):
        """Returns a result for each text of a batch; a batch has texts of several requests."""
        return [len(text.split(self.separator)) for text in texts]

    def encode_response(self, words):
        """Returns the body of a response."""
        return {"words": words}


if __name__ == "__main__":
    api = WordsAPI(max_batch_size=8, batch_timeout=0.005)
    ls.LitServer(api, path="/words").run(port=8000)
