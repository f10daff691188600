"""What every model of the resource has in common."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """An immutable part of the resource, snake_case in Python and camelCase on the wire.

    Unknown fields are refused here as the API server prunes them: a field that is accepted has behaviour.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


class StoredModel(Model):
    """A part that is read back from the cluster, where a newer version of the operator may have written more."""

    model_config = ConfigDict(extra="ignore")
