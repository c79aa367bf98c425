"""Writes `model.gguf` into a directory: a Llama with random weights and a vocabulary of bytes.

python tests/tiny_gguf.py FOLDER
"""

import sys

import gguf
import numpy

WIDTH, INNER, HEADS, LAYERS, WINDOW = 32, 64, 2, 2, 1024
SPECIAL = ["<s>", "</s>"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:{{ message['content'] }}\n{% endfor %}"
    "assistant:"
)


def alphabet():
    """Returns a character for each byte, as GPT-2 writes those that are not printable."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    shown = {byte: chr(256 + number) for number, byte in enumerate(others)}
    return [shown.get(byte, chr(byte)) for byte in range(256)]


def main(folder):
    # What joins two of them must be there, and so there is one such token.
    tokens = [*SPECIAL, *alphabet(), "th"]
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * 257
    out = gguf.GGUFWriter(f"{folder}/model.gguf", "llama")
    out.add_context_length(WINDOW)
    out.add_embedding_length(WIDTH)
    out.add_feed_forward_length(INNER)
    out.add_block_count(LAYERS)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(tokens))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    out.add_token_list(tokens)
    out.add_token_types(kinds)
    out.add_token_merges(["t h"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    out.add_chat_template(TEMPLATE)
    random = numpy.random.default_rng(0)
    for name, shape in tensors(len(tokens)):
        is_norm = len(shape) == 1
        values = numpy.ones(shape) if is_norm else random.normal(0, 0.3, shape)
        out.add_tensor(name, values.astype(numpy.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def tensors(words):
    yield "token_embd.weight", (words, WIDTH)
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", (WIDTH,)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{name}.weight", (WIDTH, WIDTH)
        for name in ("ffn_gate", "ffn_up"):
            yield f"blk.{layer}.{name}.weight", (INNER, WIDTH)
        yield f"blk.{layer}.ffn_down.weight", (WIDTH, INNER)
    yield "output_norm.weight", (WIDTH,)
    yield "output.weight", (words, WIDTH)


if __name__ == "__main__":
    main(sys.argv[1])
