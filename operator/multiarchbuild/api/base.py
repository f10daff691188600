"""What every model of the resource has in common."""

import re
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Model(BaseModel):
    """An immutable part of the resource, snake_case in Python and camelCase on the wire.

    Unknown fields are ignored: what is read may have been written by a newer version of the operator, or completed with
    the defaults of a newer CustomResourceDefinition. What people write is held to the schema by the API server, which
    refuses or prunes them, and the policy file by `controller/settings.py`.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )


class Record(Model):
    """What was true once and never changes: what a newer version has said of it besides is kept as it is."""

    model_config = ConfigDict(extra="allow")


KNOWN: Final = "x-known-values"
"""Keyword for the values of an `OpenEnum` that this version knows; no part of the CRD."""
_WORD: Final = "[A-Za-z][A-Za-z0-9]{0,63}"


class OpenEnum(StrEnum):
    """Values in status and in results of steps, to which a newer version of the operator may add.

    A value that is not known is kept and shown as it is, and equals none that is. It must be a CamelCase word.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return cls._unknown(value) if isinstance(value, str) and re.fullmatch(_WORD, value) else None

    @classmethod
    @lru_cache(maxsize=1024)
    def _unknown(cls, value: str) -> Self:
        """Return the same member for the same value, so that `is` says whether two are equal."""
        unknown = str.__new__(cls, value)
        unknown._name_ = unknown._value_ = value
        return unknown

    @property
    def known(self) -> bool:
        """Whether this version knows the value."""
        return self in type(self).__members__.values()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say in the CRD what it looks like, not what there is: an older CRD takes the values of a newer operator."""
        schema: dict[str, Any] = handler.resolve_ref_schema(handler(core_schema))
        known = schema.pop("enum", None) or [schema.pop("const")]
        schema |= {"type": "string", "minLength": 1, "maxLength": 64, "pattern": f"^{_WORD}$", KNOWN: known}
        return schema
