"""docs/policy.md has a row for each field of the policy, and none for another."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin

from pydantic import BaseModel

from multiarchbuild.api.keyless import Keyless
from multiarchbuild.api.scheduling import Resources
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.tenants import Nodes

PAGE = Path(__file__).parents[3] / "docs" / "policy.md"


def test_every_field_has_a_row() -> None:
    rows = re.findall(r"^\| `([\w.\[\]]+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    fields = set(_fields(Policy))
    parents = {field.rpartition(".")[0].removesuffix("[]") for field in fields} - {""}
    assert set(rows) <= fields | parents
    assert fields - parents <= set(rows)


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    # Nodes are told of in the row of the field that they are in.
    told = Nodes.model_fields if issubclass(model, Nodes) else {}
    for field in (each for name, each in model.model_fields.items() if name not in told):
        path = f"{prefix}{field.alias}"
        yield path
        # What may be left out in favour of another field has the fields of that one.
        own = {Keyless} & {*get_args(field.annotation)}
        instead = get_origin(field.annotation) is UnionType and not own
        kinds = [] if instead else [field.annotation, *get_args(field.annotation)]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Resources:
                listed = field.annotation is not kind and kind not in own
                yield from _fields(kind, f"{path}{'[].' if listed else '.'}")
