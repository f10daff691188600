"""The CustomResourceDefinition, made from the models: `python -m multiarchbuild.api.crd` writes it.

A structural schema (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/)
is narrower than JSON Schema: no references, no `null`, no titles, and bounds beside the type they bound.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .base import KNOWN
from .reasons import Reason
from .record import schema
from .reference import markdown
from .resource import GROUP, KIND, PLURAL, SHORT_NAME, VERSION
from .schema import VALIDATIONS
from .spec import Spec
from .status import Status

Schema = dict[str, Any]

NAME = f"{PLURAL}.{GROUP}"
"""Name of the CustomResourceDefinition."""

_COLUMNS = (
    (
        "Ready",
        "string",
        '.status.conditions[?(@.type=="Ready")].status',
        0,
        "Whether the image is up to date.",
    ),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0, "Why it is ready or not."),
    ("Platforms", "string", ".status.columns.platforms", 0, "Platforms done and wanted."),
    ("Digest", "string", ".status.columns.digest", 0, "Start of the digest of the image."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since the resource was created."),
    ("Image", "string", ".spec.output.image", 1, "Repository that is pushed to."),
    ("Commit", "string", ".status.run.source.commit", 1, "Commit of the current or last run."),
    ("Duration", "string", ".status.columns.duration", 1, "How long the last run took."),
)


def crd() -> Schema:
    """Return the manifest of the CustomResourceDefinition (apiextensions.k8s.io/v1)."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {
                            "name": name,
                            "type": kind,
                            "jsonPath": path,
                            "priority": priority,
                            "description": description,
                        }
                        for name, kind, path, priority, description in _COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _resource()},
                }
            ],
        },
    }


def _resource() -> Schema:
    return {
        "type": "object",
        "description": "One source that becomes one image for several platforms.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"Always {KIND}."},
            "metadata": {"type": "object"},
            "spec": structural(Spec),
            # kstatus calls an object without a condition Current; -1 tells that nobody has looked at it yet.
            "status": {**structural(Status), "default": {}},
        },
    }


def structural(model: type[BaseModel]) -> Schema:
    """Return the structural schema of `model`, field names in camelCase."""
    _, document = models_json_schema([(model, "validation")], by_alias=True)
    definitions = document["$defs"]
    return _structural(definitions[model.__name__], definitions)


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    node = _inlined(node, definitions)
    schema = {key: value for key, value in node.items() if key not in _NOT_STRUCTURAL}
    if "properties" in node:
        schema["properties"] = {name: _structural(value, definitions) for name, value in node["properties"].items()}
    elif isinstance(node.get("additionalProperties"), dict):
        schema["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    if "items" in node:
        schema["items"] = _structural(node["items"], definitions)
    if node.get("x-kubernetes-int-or-string"):
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if (default := _default(node.get("default"), schema)) is not None:
        schema["default"] = default
    if (known := schema.pop(KNOWN, None)) is not None:
        schema["description"] = f"{schema['description']} {_values(known)}"
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    return {key: schema[key] for key in sorted(schema, key=_position)}


def _values(known: Sequence[str]) -> str:
    """Return what is said of values to which a newer operator may add."""
    if list(known) == list(Reason):
        return "One of the reasons in troubleshooting.md, or one of a newer operator."
    return f"One of {', '.join(known)}, or what a newer operator writes."


_NOT_STRUCTURAL = frozenset({"title", "anyOf", "additionalProperties", "default"})


def _inlined(node: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """Return `node` with what it refers to and its one alternative to `null` written out."""
    node = dict(node)
    inner: Mapping[str, Any] = {}
    if "$ref" in node:
        inner = definitions[node.pop("$ref").removeprefix("#/$defs/")]
    elif "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        (inner,) = (each for each in node.pop("anyOf") if each.get("type") != "null")
    else:
        return node
    inner = _inlined(inner, definitions)
    rules = [*inner.get(VALIDATIONS, ()), *node.get(VALIDATIONS, ())]
    return {**inner, **node, **({VALIDATIONS: rules} if rules else {})}


def _default(default: Any, schema: Schema) -> Any:
    """Return what the API server fills in: nothing where that would mean the same as leaving the field out."""
    if "properties" in schema:
        filled = any("default" in field for field in schema["properties"].values())
        return {} if filled and default is not None else None
    return default or None


_ORDER = ("description", "type", "format", "enum", "default", "required", "properties")


def _position(keyword: str) -> tuple[int, str]:
    return (_ORDER.index(keyword) if keyword in _ORDER else len(_ORDER), keyword)


def main(argv: list[str] | None = None) -> int:
    """Write the CRD (crds/, the chart) and its reference (docs/), or with --check say whether they are up to date."""
    parser = argparse.ArgumentParser(prog="python -m multiarchbuild.api.crd", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is not up to date")
    check = parser.parse_args(argv).check
    stale = [path for path, content in files().items() if not path.exists() or path.read_text("utf-8") != content]
    for path in stale:
        if check:
            sys.stderr.write(f"{path} is not what the models say: run make generate\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path], "utf-8")
    return 1 if check and stale else 0


def files() -> dict[Path, str]:
    """Return the content of every generated file of the repository by its path."""
    root = Path(__file__).parents[3]
    return {
        root / "crds" / f"{GROUP}_{PLURAL}.yaml": f"{_GENERATED}{_yaml(crd())}",
        root / "charts" / "multiarchbuild" / "templates" / "crds.yaml": _template(),
        root / "docs" / "reference.md": markdown(crd()),
        root / "docs" / "schemas" / "record.v1.json": f"{json.dumps(schema(), indent=2, ensure_ascii=False)}\n",
    }


_GENERATED = "# Generated from operator/multiarchbuild/api by `make generate`: edit the models.\n"


def _yaml(document: Schema) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


def _template() -> str:
    """Return the CRD as a template of the chart. Helm takes `{{` for its own, which no text of the models contains."""
    text = _yaml(crd())
    assert "{{" not in text
    keep = "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    name = f"  name: {NAME}\n"
    body = text.replace(name, f"{name}{keep}", 1)
    return f"{_GENERATED}{{{{- if .Values.crds.enabled }}}}\n{body}{{{{- end }}}}\n"


if __name__ == "__main__":
    raise SystemExit(main())
