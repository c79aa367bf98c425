"""Images in JSON, as base64. This needs pydantic, and Pillow to create or read an image."""

import base64
import importlib
import io
from typing import Any, Optional

from pydantic import BaseModel, field_serializer, model_validator


class ImageInput(BaseModel):
    """An image in a request. A subclass may have more fields: each string is an image.

    Attributes:
        image_data: The file of the image, in base64. Default: None.

    Raises:
        ValidationError: a string is not base64.
    """

    image_data: Optional[str] = None

    @model_validator(mode="after")
    def validate_base64(self) -> "ImageInput":
        """Returns the model itself.

        Raises:
            ValueError: a string is not base64.
        """
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, str):
                try:
                    base64.b64decode(value, validate=True)
                except ValueError:
                    raise ValueError(f"`{name}` is not valid base64") from None
        return self

    def get_image(self, key: Optional[str] = None) -> Any:
        """Returns an image as a ``PIL.Image.Image``.

        Args:
            key: The field of the image. Default: ``image_data``.

        Raises:
            ValueError: the field is empty, or has no image that Pillow can read.
        """
        name = key or "image_data"
        data = getattr(self, name, None)
        if not data:
            raise ValueError(f"`{name}` has no image")
        image = importlib.import_module("PIL.Image")
        try:
            return image.open(io.BytesIO(base64.b64decode(data)))
        except Exception as error:
            raise ValueError(f"`{name}` has no image that Pillow can read: {error}") from error


class ImageOutput(BaseModel):
    """An image in a response.

    Attributes:
        image: A ``PIL.Image.Image``; in JSON it is a PNG file in base64.
    """

    image: Any

    @field_serializer("image")
    def serialize_image(self, image: Any, _info: Any) -> str:
        """Returns the image as a PNG file in base64.

        Raises:
            TypeError: the value is not an image of Pillow.
        """
        if not isinstance(image, importlib.import_module("PIL.Image").Image):
            raise TypeError(f"`image` must be a PIL.Image.Image, not {type(image).__name__}")
        file = io.BytesIO()
        image.save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode()
