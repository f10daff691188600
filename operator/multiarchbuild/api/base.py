"""What every model of the resource has in common."""

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
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
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe each field by the docstring below it.

        With `use_attribute_docstrings` pydantic would read and parse the source of all models whenever a step starts,
        which is a fifth of what that takes; only who makes a schema needs it.
        """
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, text in _docstrings(cls):
            properties[cls.model_fields[name].alias].setdefault("description", text)
        return schema


def _docstrings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield the name of each field of `model` that has a docstring, with that."""
    for base in model.__mro__:
        if not issubclass(base, Model) or base is Model:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(found))):
                    if name in model.model_fields:
                        yield name, inspect.cleandoc(found)


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
