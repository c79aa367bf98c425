"""A vision-language model for clients of OpenAI's API, with streamed responses.

    pip install litplex torch torchvision transformers pillow
    python examples/vlm.py HuggingFaceTB/SmolVLM-256M-Instruct

The checkpoint is a folder, or a name on the Hugging Face Hub. Ask it with any client of that API:

    client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}
    text = {"type": "text", "text": "What is this?"}
    messages = [{"role": "user", "content": [image, text]}]
    client.chat.completions.create(model="vlm", messages=messages, stream=True)
"""

import argparse
import io
import os
from concurrent.futures import ThreadPoolExecutor

import litplex as ls


class VisionAPI(ls.LitAPI):
    """Generates texts for messages with images, one request at a time."""

    def __init__(self, checkpoint):
        # The server decodes images: they reach `decode_request` as bytes.
        super().__init__(spec=ls.OpenAISpec(decode_media=True))
        self.checkpoint = checkpoint

    def setup(self, device):
        # Imported here, so that only the worker loads the libraries.
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(self.checkpoint)
        model = AutoModelForImageTextToText.from_pretrained(self.checkpoint, dtype=dtype_of(device))
        self.model = model.to(device).eval()
        self.thread = ThreadPoolExecutor(1)

    def decode_request(self, request):
        messages = [
            {"role": message["role"], "content": parts_of(message["content"])}
            for message in request.model_dump()["messages"]
        ]
        inputs = self.processor.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        length, most = inputs["input_ids"].shape[1], self.most_tokens()
        if length >= most:
            raise ls.HTTPException(
                422, f"the messages are {length} tokens, and the model takes less than {most}"
            )
        return inputs.to(self.model.device, dtype=self.model.dtype)

    def predict(self, inputs, context):
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        length = inputs["input_ids"].shape[1]
        wanted = context["max_completion_tokens"] or context["max_tokens"] or 512
        options = {"do_sample": False}
        if context["temperature"] > 0:
            options = {"do_sample": True, **{n: context[n] for n in ("temperature", "top_p")}}
        pieces = TextIteratorStreamer(
            self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        # `generate` returns at the end. On a thread, its tokens can be sent as they are generated.
        answer = self.thread.submit(
            self.model.generate,
            **inputs,
            **options,
            max_new_tokens=min(wanted, self.most_tokens() - length),
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

    def most_tokens(self):
        return self.model.config.get_text_config().max_position_embeddings


def dtype_of(device):
    import torch

    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device.startswith("mps") else torch.float32


def has_left(context):
    """Returns a criterion that ends the generation at the next token once the client has left."""
    import torch

    def is_done(tokens, scores, **_):
        return torch.full((len(tokens),), context.cancelled, device=tokens.device)

    return is_done


def parts_of(content):
    """Returns the content of a message in the form of chat templates."""
    if isinstance(content, list):
        return [part_of(part) for part in content]
    return [{"type": "text", "text": content or ""}]


def part_of(part):
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image_url":
        return {"type": "image", "image": image_of(part["image_url"]["data"])}
    raise ls.HTTPException(422, f"the model takes text and images, and no `{part['type']}`")


def image_of(data):
    from PIL import Image

    if data is None:
        # The server must not fetch addresses for clients: it could read data that they may not.
        raise ls.HTTPException(422, "an image must come as `data:image/…;base64,…`")
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (ValueError, OSError, Image.DecompressionBombError):
        raise ls.HTTPException(422, "an image cannot be read") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves a vision-language model.")
    parser.add_argument("checkpoint", help="a folder, or a name on the Hugging Face Hub")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--gpu-memory-fraction", type=float, default=1.0, help="the share it may take"
    )
    args = parser.parse_args()
    # The folder of the model is relative to the working directory, not to this file.
    server = ls.LitServer(
        VisionAPI(args.checkpoint),
        gpu_memory_fraction=args.gpu_memory_fraction,
        cwd=os.getcwd(),
        timeout=120,
    )
    server.run(port=args.port)
