"""Writes a checkpoint of a vision-language model with random weights into a directory.

It is a LLaVA of a few thousand parameters, with a tokenizer of single bytes. Run on its own: the
libraries that it needs take seconds to import and warn of each other.
"""

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}assistant:"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<image>"]


def tokenizer():
    alphabet = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: n for n, token in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )


def processor():
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return LlavaProcessor(
        images,
        tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def model():
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    small["num_attention_heads"] = 2
    text = LlamaConfig(
        vocab_size=len(SPECIAL) + 256,
        max_position_embeddings=100_000,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **small,
    )
    vision = CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=16, **small)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-1
    )
    torch.manual_seed(0)
    made = LlavaForConditionalGeneration(config)
    # It never ends by itself, and says nothing but bytes.
    made.generation_config.suppress_tokens = [0, 1, 2, 3]
    return made


if __name__ == "__main__":
    model().save_pretrained(sys.argv[1])
    processor().save_pretrained(sys.argv[1])
