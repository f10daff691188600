"""The field reference `docs/reference.md`, from the same schema that the API server enforces."""

from collections.abc import Iterator, Mapping
from typing import Any

from .resource import CANCEL_ANNOTATION, FLUX_RECONCILE_ANNOTATION, GROUP, KIND, REBUILD_ANNOTATION, VERSION
from .schema import VALIDATIONS

_HEAD = f"""# Fields of {KIND}

`{GROUP}/{VERSION}`. The same text is in `kubectl explain mab.spec --recursive`. The API server refuses an object that
breaks a rule or bound named here, and fills in the defaults.

## Annotations

| annotation | meaning |
|---|---|
| `{REBUILD_ANNOTATION}` | A time (RFC 3339). Each new value starts one run. |
| `{CANCEL_ANNOTATION}` | The id of a run, as in `status.run.id`. Ends that run. |
| `{FLUX_RECONCILE_ANNOTATION}` | Each new value: look at the source; echoed in `status.lastHandledReconcileAt`. |
"""


def markdown(crd: Mapping[str, Any]) -> str:
    """Return the page for a CustomResourceDefinition: one section for each object, one row for each of its fields."""
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    sections = (section for name in ("spec", "status") for section in _sections(name, root[name]))
    return "\n".join((_HEAD, *sections))


def _sections(path: str, schema: Mapping[str, Any]) -> Iterator[str]:
    fields = schema["properties"]
    required = schema.get("required", ())
    rows = [_row(name, field, required=name in required) for name, field in fields.items()]
    rules = "".join(f"\nRule: {rule['message']}.\n" for rule in schema.get(VALIDATIONS, ()))
    yield "\n".join((f"## {path}\n", f"{schema['description']}\n{rules}", _TABLE, *rows, ""))
    for name, field in fields.items():
        if "properties" in field:
            yield from _sections(f"{path}.{name}", field)
        elif "properties" in field.get("items", ()):
            yield from _sections(f"{path}.{name}[]", field["items"])


_TABLE = "| field | type | default | meaning |\n|---|---|---|---|"


def _row(name: str, field: Mapping[str, Any], *, required: bool) -> str:
    default = field.get("default")
    shown = "required" if required else "" if default in (None, {}) else f"`{_plain(default)}`"
    meaning = "<br>".join(filter(None, map(_cell, (field["description"], _bounds(field), *_rules(field)))))
    return f"| `{name}` | {_type(field)} | {shown} | {meaning} |"


def _rules(field: Mapping[str, Any]) -> Iterator[str]:
    for schema in (field, field.get("items", {}), field.get("additionalProperties", {})):
        if "properties" not in schema:
            yield from (f"Rule: {rule['message']}." for rule in schema.get(VALIDATIONS, ()))


def _type(field: Mapping[str, Any]) -> str:
    if "items" in field:
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field:
        return f"map of {_type(field['additionalProperties'])}"
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    return "time" if field.get("format") == "date-time" else str(field["type"])


def _bounds(field: Mapping[str, Any]) -> str:
    said = []
    if "enum" in field:
        said.append("one of " + ", ".join(f"`{value}`" if value else "empty" for value in field["enum"]))
    if "minimum" in field and "maximum" in field:
        said.append(f"{field['minimum']} to {field['maximum']}")
    for keyword, unit in (("maxLength", "characters"), ("maxItems", "entries"), ("maxProperties", "entries")):
        if keyword in field:
            said.append(f"at most {field[keyword]} {unit}")
    return f"Bounds: {', '.join(said)}." if said else ""


def _plain(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return f"[{', '.join(default)}]" if isinstance(default, list) else str(default)


def _cell(text: str) -> str:
    text = text.replace("reasons in troubleshooting.md", "[reasons](troubleshooting.md)")
    return text.replace("|", r"\|").replace("<", "&lt;")
