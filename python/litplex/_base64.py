"""The annotation of fields that clients send as base64 and hooks get as bytes."""

from __future__ import annotations

import base64
from typing import Any


class Base64:
    """Marks bytes that clients send as base64 in JSON: ``image: Annotated[bytes, ls.Base64]``, as a
    field of a pydantic model or as the ``request`` of ``decode_request``.

    The hook gets the decoded bytes. The server finds the text in the body and decodes it before the
    worker sees the request, which is several times as fast as Python; pydantic's ``Base64Bytes`` is
    decoded there, too. The alphabet is the standard one, with padding (RFC 4648, section 4), and
    white space in the text is skipped. Anything else is a 422 that names the field. A hook of
    another endpoint may send bytes as they are. In a response, such a field becomes base64.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            decoded,
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(
                encoded, when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        described = handler(schema)
        described.update(type="string", format="base64")
        return described


def bytes_of(text: str) -> bytes:
    """Returns the bytes of a base64 text.

    Raises:
        ValueError: it is not base64.
    """
    return base64.b64decode("".join(text.split()), validate=True)


def decoded(value: Any) -> Any:
    """Returns the bytes of a base64 text; another value as it is.

    Raises:
        PydanticCustomError: the text is not base64.
    """
    if not isinstance(value, str):
        return value
    try:
        return bytes_of(value)
    except ValueError as error:
        from pydantic_core import PydanticCustomError

        raise PydanticCustomError(
            "base64_decode", "Base64 decoding error: '{error}'", {"error": str(error)}
        ) from None


def encoded(value: Any) -> Any:
    """Returns the base64 text of bytes; another value as it is."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
