"""A language model in a GGUF file with llama.cpp, for clients of OpenAI's API, streamed.

    pip install litplex llama-cpp-python
    python examples/llama.py SmolLM2-360M-Instruct-Q8_0.gguf

(llama-cpp-python is built when it is installed, for which it needs a C++ compiler; its
documentation says how to build it for a GPU.) Ask it with any client of that API:

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    client.chat.completions.create(model="llama", messages=messages, stream=True)

or with curl:

    curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
        -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
"""

import argparse
import os

import litplex as ls

# Fields of a request that are passed to llama.cpp, if the client sends them.
SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
)


class LlamaAPI(ls.LitAPI):
    """Generates responses to messages, one request at a time."""

    def __init__(self, file, window):
        super().__init__(spec=ls.OpenAISpec())
        self.file, self.window = file, window

    def setup(self, device):
        # Imported here, so that only the worker loads the library.
        from llama_cpp import Llama

        self.model = Llama(
            self.file,
            n_ctx=self.window,
            n_threads=self.threads,
            n_threads_batch=self.threads,
            n_gpu_layers=0 if device == "cpu" else -1,
            verbose=False,
        )

    def predict(self, request, context):
        given = {name: context.get(name) for name in SAMPLING}
        chunks = self.model.create_chat_completion(
            request.model_dump()["messages"],
            max_tokens=context["max_completion_tokens"] or context["max_tokens"] or 512,
            stream=True,
            **{name: value for name, value in given.items() if value is not None},
        )
        # When the client leaves, the generator is closed at the next piece.
        for chunk in chunks:
            choice = chunk["choices"][0]
            yield choice["delta"].get("content") or ""
            if choice["finish_reason"]:
                yield {"content": "", "finish_reason": choice["finish_reason"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves a language model in a GGUF file.")
    parser.add_argument("file")
    parser.add_argument("--window", type=int, default=4096, help="the most tokens of a chat")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    # The file of the model is relative to the working directory, not to this program.
    api = LlamaAPI(args.file, args.window)
    ls.LitServer(api, cwd=os.getcwd(), timeout=120).run(port=args.port)
