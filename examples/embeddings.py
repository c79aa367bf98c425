"""Vectors of texts with sentence-transformers, for clients of OpenAI's API.

    pip install litplex sentence-transformers
    python examples/embeddings.py sentence-transformers/all-MiniLM-L6-v2

The model is a folder, or a name on the Hugging Face Hub. Ask it with any client of that API:

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    client.embeddings.create(model="embeddings", input=["a cat", "a kitten"])

or with curl:

    curl localhost:8000/v1/embeddings -H 'Content-Type: application/json' -d '{"input": "a cat"}'
"""

import argparse
import os

import litplex as ls


class EmbeddingAPI(ls.LitAPI):
    """Vectors of texts; up to 32 waiting texts of all clients are one batch."""

    def __init__(self, model):
        super().__init__(spec=ls.OpenAIEmbeddingSpec(), max_batch_size=32, batch_timeout=0.005)
        self.name = model

    def setup(self, device):
        # Imported here, so that only the worker loads the library.
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(self.name, device=device)

    def predict(self, texts):
        return self.model.encode(texts, normalize_embeddings=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves a model of sentence embeddings.")
    parser.add_argument("model", help="a folder, or a name on the Hugging Face Hub")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    # The folder of the model is relative to the working directory, not to this file.
    ls.LitServer(EmbeddingAPI(args.model), cwd=os.getcwd()).run(port=args.port)
