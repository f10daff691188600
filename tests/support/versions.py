"""The CustomResourceDefinition of the versions before and after this one, made from that of this one."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

from multiarchbuild.api.crd import crd

Schema = dict[str, Any]
FUTURE = "FromTheFuture"


def one_ahead(schema: Schema, *, room: bool = True) -> Schema:
    """Return the schema of the next version: more fields, more values and, where wanted, more `room`.

    Rules in CEL have a budget for which bounds count.
    """
    schema = copy.deepcopy(schema)
    for node in tuple(nodes(schema)):
        if "properties" in node:
            value = {"type": "integer", "description": "What it is about."}
            field = {"type": "object", "description": "What comes.", "properties": {"value": value}}
            node["properties"]["fromTheFuture"] = field
        for keyword in ("maxLength", "maxItems", "maximum"):
            if room and keyword in node:
                node[keyword] = 2 * node[keyword] + 1
        for keyword in ("minimum", "minLength", "minItems"):
            node.pop(keyword, None)
        if "enum" in node:
            node["enum"] = [*node["enum"], FUTURE]
    return schema


def next_definition() -> Schema:
    """Return the definition of the next version."""
    return changed_definition(lambda schema: one_ahead(schema, room=False), "spec", "status")


def changed_definition(change: Callable[[Schema], Schema], *parts: str) -> Schema:
    """Return the definition with the schema of `spec` or `status` changed."""
    definition = crd()
    (version,) = definition["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    for part in parts:
        properties[part] = change(properties[part])
    return definition


def one_behind(schema: Schema, fields: frozenset[str]) -> Schema:
    """Return the schema of a version that had no such `fields`, wherever they are."""
    schema = copy.deepcopy(schema)
    for node in tuple(nodes(schema)):
        for name in fields & set(node.get("properties", {})):
            assert name not in node.get("required", ()), f"without {name} nothing could be read"
            del node["properties"][name]
    return schema


def nodes(schema: Schema) -> Iterator[Schema]:
    """Yield a schema and all that are in it."""
    yield schema
    for inside in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inside, dict):
            yield from nodes(inside)


def definition_with_old_words() -> Schema:
    """Return the definition before names and values changed for `v1beta1`."""
    return changed_definition(_with_old_words, "spec")


def _with_old_words(schema: Schema) -> Schema:
    schema = copy.deepcopy(schema)
    fields = schema["properties"]
    for part, name in (("cache", "mode"), ("attestations", "provenance"), ("build", "network")):
        node = fields[part]["properties"][name]
        node |= {"enum": [*map(str.lower, node["enum"]), *node["enum"]], "default": node["default"].lower()}
        if "default" in fields[part]:
            fields[part]["default"] = _lower(fields[part]["default"], name)
    secret = fields["build"]["properties"]["secrets"]["items"]
    secret["properties"]["secretRef"] = secret["properties"].pop("secretKeyRef")
    secret["required"] = ["id", "secretRef"]
    return schema


def _lower(default: Schema, name: str) -> Schema:
    return {key: value.lower() if key == name else value for key, value in default.items()}
