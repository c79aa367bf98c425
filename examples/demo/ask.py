"""Answers to questions about the pages that the server has read.

/ask calls /search, which finds the passages that are nearest to the question, and has the language
model answer from the nearest one.
"""

import time

import litplex as ls

PROMPT = "Answer the question in one short sentence, from this text alone.\n\n{passage}"


class AskAPI(ls.LitAPI):
    search = ls.endpoint("/search")
    chat = ls.endpoint("/v1/chat/completions")

    def __init__(self):
        super().__init__(stream=True)

    def decode_request(self, request):
        question = request.get("question") if isinstance(request, dict) else None
        if not isinstance(question, str) or not question.strip():
            raise ls.HTTPException(422, 'send {"question": "…"}')
        return question

    def predict(self, question):
        """Yields the passages, the answer piece by piece, and the time of each stage."""
        clock = Clock()
        passages = self.search({"question": question})["passages"]
        if not passages:
            raise ls.HTTPException(404, "no page was read; send pictures of pages to /documents")
        clock.end("search")
        yield {"passages": passages}
        for number, chunk in enumerate(self.chat.stream(chat_request(question, passages[0]))):
            if number == 0:
                clock.end("first token")
            yield {"text": chunk["choices"][0]["delta"].get("content") or ""}
        clock.end("answer")
        yield {"milliseconds": clock.milliseconds}


def chat_request(question, passage):
    messages = [
        {"role": "system", "content": PROMPT.format(passage=passage["text"])},
        {"role": "user", "content": question},
    ]
    return {"messages": messages, "temperature": 0, "max_tokens": 96}


class Clock:
    """The time of each stage, from the end of the one before."""

    def __init__(self):
        self.milliseconds = {}
        self.last = time.perf_counter()

    def end(self, stage):
        now = time.perf_counter()
        self.milliseconds[stage] = round((now - self.last) * 1000, 1)
        self.last = now
