"""A language model with transformers, for clients of OpenAI's API, with streamed responses.

    pip install litplex torch transformers
    python examples/text.py HuggingFaceTB/SmolLM2-360M-Instruct

The model is a folder, or a name on the Hugging Face Hub. Ask it with any client of that API:

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    client.chat.completions.create(model="text", messages=messages, stream=True)

or with curl:

    curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
        -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
"""

import argparse
import os
from concurrent.futures import ThreadPoolExecutor

import litplex as ls


class TextAPI(ls.LitAPI):
    """Generates responses to messages, one request at a time."""

    def __init__(self, model):
        super().__init__(spec=ls.OpenAISpec())
        self.name = model

    def setup(self, device):
        # Imported here, so that only the worker loads the libraries.
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        dtype = torch.float32 if device == "cpu" else torch.float16
        self.tokenizer = AutoTokenizer.from_pretrained(self.name)
        model = AutoModelForCausalLM.from_pretrained(self.name, dtype=dtype)
        self.model = model.to(device).eval()
        self.thread = ThreadPoolExecutor(1)

    def decode_request(self, request):
        messages = [
            {"role": message["role"], "content": text_of(message["content"])}
            for message in request.model_dump()["messages"]
        ]
        inputs = self.tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        length, most = inputs["input_ids"].shape[1], self.model.config.max_position_embeddings
        if length >= most:
            raise ls.HTTPException(
                422, f"the messages are {length} tokens, and the model takes less than {most}"
            )
        return inputs.to(self.model.device)

    def predict(self, inputs, context):
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        length = inputs["input_ids"].shape[1]
        wanted = context["max_completion_tokens"] or context["max_tokens"] or 512
        options = {"do_sample": False}
        if context["temperature"] > 0:
            options = {"do_sample": True, **{n: context[n] for n in ("temperature", "top_p")}}
        pieces = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        # `generate` returns at the end. On a thread, its tokens can be sent as they are generated.
        answer = self.thread.submit(
            self.model.generate,
            **inputs,
            **options,
            max_new_tokens=min(wanted, self.model.config.max_position_embeddings - length),
            streamer=pieces,
            stopping_criteria=StoppingCriteriaList([has_left(context)]),
        )
        # After an exception, nothing else would end the pieces.
        answer.add_done_callback(lambda _: pieces.end())
        yield from filter(None, pieces)
        total = answer.result().shape[1]
        yield {
            "content": "",
            "prompt_tokens": length,
            "completion_tokens": total - length,
            "total_tokens": total,
        }


def has_left(context):
    """Returns a criterion that ends the generation at the next token once the client has left."""
    import torch

    def is_done(tokens, scores, **_):
        return torch.full((len(tokens),), context.cancelled, device=tokens.device)

    return is_done


def text_of(content):
    """Returns the text of a message, which may come in parts."""
    if not isinstance(content, list):
        return content or ""
    if any(part["type"] != "text" for part in content):
        raise ls.HTTPException(422, "the model takes text alone")
    return "".join(part["text"] for part in content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves a language model.")
    parser.add_argument("model", help="a folder, or a name on the Hugging Face Hub")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    # The folder of the model is relative to the working directory, not to this file.
    ls.LitServer(TextAPI(args.model), cwd=os.getcwd(), timeout=120).run(port=args.port)
