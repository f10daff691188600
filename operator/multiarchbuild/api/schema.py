"""What the CRD says of a field beyond its type and bounds: annotations beside `pydantic.Field`.

They shape the schema that the API server enforces; parsing in Python is not repeated for them, as no object
reaches the operator without having passed the API server.
"""

from dataclasses import dataclass

from pydantic import GetJsonSchemaHandler
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule in CEL that the API server evaluates, with a message that says what to write instead.

    Source: https://kubernetes.io/docs/reference/using-api/cel/.
    """

    expression: str
    message: str
    field: str = ""
    """Path of the field below this one that the message is about, such as `.output.tags`."""

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        schema[VALIDATIONS] = [*schema.get(VALIDATIONS, ()), self.as_dict()]
        return schema

    def as_dict(self) -> dict[str, str]:
        """Return the entry of `x-kubernetes-validations`."""
        entry = {"rule": self.expression, "message": self.message}
        return {**entry, "fieldPath": self.field} if self.field else entry


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword of the schema that pydantic has no name for."""

    name: str
    value: str | bool | int | tuple[str, ...]

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            **handler(core_schema),
            self.name: list(self.value) if isinstance(self.value, tuple) else self.value,
        }


SET = Keyword("x-kubernetes-list-type", "set")
"""No entry may occur twice, and appliers own single entries."""
ATOMIC = Keyword("x-kubernetes-list-type", "atomic")
"""An applier owns the whole list, as of the lists in a Pod that this one is copied to."""


@dataclass(frozen=True, slots=True)
class MapBy:
    """A list whose entries are told apart by one field."""

    key: str

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            **handler(core_schema),
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": [self.key],
        }


def matches(pattern: str, message: str) -> Rule:
    """Return the rule that a string matches `pattern` (RE2) as a whole."""
    return Rule(f"self.matches(r'^{pattern}$')", message)


def keys_match(pattern: str, message: str, *, longest: int = 128) -> Rule:
    """Return the rule that every key of a map matches `pattern` (RE2) and has at most `longest` characters."""
    return Rule(f"self.all(k, k.size() <= {longest} && k.matches(r'^{pattern}$'))", message)


def model_rules(*rules: Rule) -> JsonDict:
    """Return the `json_schema_extra` that puts `rules` on a whole model."""
    return {VALIDATIONS: [dict(rule.as_dict()) for rule in rules]}
