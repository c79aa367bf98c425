"""Images and recordings of chats as bytes, for specs that ask for it."""

from __future__ import annotations

from typing import Any

from litplex._base64 import bytes_of
from litplex._http import HTTPException
from litplex._worker.hooks.base64_fields import Kind, Media, Path

_PART: Path = ("messages", None, "content", None)
#: The fields that the server decodes. An image is an object with a URL, or a URL.
FIELDS: dict[Path, Kind] = {
    (*_PART, "image_url", "url"): Media,
    (*_PART, "image_url"): Media,
    (*_PART, "input_audio", "data"): Media,
}


def decode(request: dict[str, Any]) -> None:
    """Replaces the base64 of images and recordings in the JSON of a chat request by bytes: an image
    has them as ``data``, beside the part of its ``data:`` URL in front of them (None for another
    URL), and a recording in place of the text. The server has decoded most of them.

    Raises:
        HTTPException: 422, if a text is not base64.
    """
    for message_at, message in enumerate(request.get("messages") or ()):
        content = message.get("content")
        for part_at, part in enumerate(content if isinstance(content, list) else ()):
            place = f"messages[{message_at}].content[{part_at}]"
            image, audio = part.get("image_url"), part.get("input_audio")
            if image is not None:
                image = image if isinstance(image, dict) else {"url": image}
                prefix, data = _of_url(image.get("url"), f"{place}.image_url")
                part["image_url"] = {**image, "url": prefix, "data": data}
            if isinstance(audio, dict):
                data = audio.get("data")
                data = (
                    data.data if isinstance(data, Media) else _bytes(data, f"{place}.input_audio")
                )
                part["input_audio"] = {**audio, "data": data}


def _of_url(url: Any, place: str) -> tuple[Any, bytes | None]:
    """Returns the part of a URL in front of its base64, and the bytes."""
    if isinstance(url, Media):
        return url
    head, comma, text = str(url).partition(",")
    if not (head.startswith("data:") and head.endswith(";base64")):
        return url, None
    return head + comma, _bytes(text, place)


def _bytes(text: Any, place: str) -> bytes:
    try:
        return bytes_of(text)
    except ValueError as error:
        raise HTTPException(422, f"invalid `{place}`: expected base64, got {error}") from None
