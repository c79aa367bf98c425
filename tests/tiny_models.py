"""Writes small models with random weights into a directory, each as its library saves them.

    python tests/tiny_models.py text|embeddings|whisper FOLDER

Run on its own: the libraries that it needs take seconds to import and warn of each other.
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:{{ message['content'] }}\n{% endfor %}"
    "assistant:"
)
SPECIAL = ["<pad>", "<s>", "</s>"]
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}


def tokenizer():
    """Returns one of single bytes."""
    alphabet = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: n for n, token in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def text(folder):
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + 256,
        max_position_embeddings=2048,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **SMALL,
    )
    model = LlamaForCausalLM(config)
    # It never ends by itself, and says nothing but bytes.
    model.generation_config.suppress_tokens = [0, 1, 2]
    model.save_pretrained(folder)
    words = tokenizer()
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)


def embeddings(folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as parts

    config = BertConfig(vocab_size=len(SPECIAL) + 256, num_attention_heads=2, **SMALL)
    BertModel(config).save_pretrained(f"{folder}/bert")
    words = tokenizer()
    words.model_max_length = 128
    words.save_pretrained(f"{folder}/bert")
    bert = parts.Transformer(f"{folder}/bert")
    SentenceTransformer(modules=[bert, parts.Pooling(16)]).save(folder)


def whisper(folder):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*alphabet, "<|endoftext|>"])}
    words = WhisperTokenizer(vocab=vocabulary, merges=[])
    special = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    words.add_special_tokens({"additional_special_tokens": special})
    start, language, task, plain = words.convert_tokens_to_ids(special)
    end = vocabulary["<|endoftext|>"]
    config = WhisperConfig(
        vocab_size=len(words),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_mel_bins=80,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        max_new_tokens=8,
        no_timestamps_token_id=plain,
        lang_to_id={"<|en|>": language},
        task_to_id={"transcribe": task},
        is_multilingual=True,
        language="<|en|>",
        task="transcribe",
        suppress_tokens=[end, start, language, task, plain],
    )
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80), words).save_pretrained(folder)


if __name__ == "__main__":
    torch.manual_seed(0)
    {"text": text, "embeddings": embeddings, "whisper": whisper}[sys.argv[1]](sys.argv[2])
