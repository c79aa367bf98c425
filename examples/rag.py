"""Answers from your own documents: an endpoint that calls two others of its server.

    pip install litplex torch transformers sentence-transformers
    python examples/rag.py notes/ sentence-transformers/all-MiniLM-L6-v2 \\
        HuggingFaceTB/SmolLM2-360M-Instruct

`notes/` is a folder of `.txt` and `.md` files. The models are folders, or names on the Hugging Face
Hub. One server has all three: `/v1/embeddings` and `/v1/chat/completions` of the examples beside
this one, and `/ask`:

    curl localhost:8000/ask -H 'Content-Type: application/json' \\
        -d '{"question": "When is the invoice due?"}'

    {"answer": "…", "sources": ["invoices.md"]}
"""

import argparse
import os
from pathlib import Path

import litplex as ls

HERE = Path(__file__).resolve().parent
PROMPT = "Answer from these notes alone. Say so if they do not have the answer.\n\n{notes}"


class AskAPI(ls.LitAPI):
    """Finds the paragraphs that are closest to a question, and lets a model answer from them."""

    embed = ls.endpoint("/v1/embeddings")
    chat = ls.endpoint("/v1/chat/completions")

    def __init__(self, documents, most=4):
        super().__init__()
        self.documents, self.most = documents, most
        self.paragraphs = None

    def predict(self, request):
        question = request.get("question") if isinstance(request, dict) else None
        if not isinstance(question, str) or not question.strip():
            raise ls.HTTPException(422, 'ask {"question": "…"}')
        # At the first question: `setup` cannot call, because the others may still be starting.
        if self.paragraphs is None:
            self.paragraphs = self.read_documents()
        (asked,) = self.vectors([question])
        closest = sorted(self.paragraphs, key=lambda known: -similarity(known[2], asked))
        closest = closest[: self.most]
        notes = "\n\n".join(text for _, text, _ in closest)
        messages = [
            {"role": "system", "content": PROMPT.format(notes=notes)},
            {"role": "user", "content": question},
        ]
        return {
            "answer": self.answer(messages),
            "sources": [*dict.fromkeys(name for name, _, _ in closest)],
        }

    def answer(self, messages):
        try:
            said = self.chat({"messages": messages, "temperature": 0, "max_tokens": 256})
        except ls.CallError as error:
            if error.status != 422:
                raise
            # It is the question that is too long: the client is to know.
            raise ls.HTTPException(422, error.detail) from None
        return said["choices"][0]["message"]["content"]

    def read_documents(self):
        """Returns the name, the text and the vector of each paragraph."""
        found = [
            (path.name, paragraph.strip())
            for path in sorted(Path(self.documents).iterdir())
            if path.suffix in (".txt", ".md")
            for paragraph in path.read_text(encoding="utf-8").split("\n\n")
            if paragraph.strip()
        ]
        if not found:
            raise ls.HTTPException(503, f"`{self.documents}` has no text to answer from")
        vectors = self.vectors([text for _, text in found])
        return [(name, text, vector) for (name, text), vector in zip(found, vectors)]

    def vectors(self, texts):
        return [item["embedding"] for item in self.embed({"input": texts})["data"]]


def similarity(one, other):
    """Returns the cosine of two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answers from the notes in a folder.")
    parser.add_argument("documents", help="a folder of .txt and .md files")
    parser.add_argument("embeddings", help="the model of examples/embeddings.py")
    parser.add_argument("text", help="the model of examples/text.py")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    # Folders are relative to the working directory, not to this file.
    here = os.getcwd()
    # Given by name, each model is imported only by its worker, which may have its own `python=`.
    embed = ls.LitServer(
        f"{HERE / 'embeddings.py'}:EmbeddingAPI",
        path="/v1/embeddings",
        args={"model": args.embeddings},
        max_batch_size=32,
        batch_timeout=0.005,
        cwd=here,
    )
    chat = ls.LitServer(
        f"{HERE / 'text.py'}:TextAPI",
        path="/v1/chat/completions",
        args={"model": args.text},
        stream=True,
        cwd=here,
        timeout=120,
    )
    ask = ls.LitServer(
        AskAPI(args.documents),
        path="/ask",
        workers_per_device=2,
        cwd=here,
        timeout=120,
    )
    ls.run_servers(embed, chat, ask, port=args.port)
