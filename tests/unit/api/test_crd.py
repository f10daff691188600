"""The CRD says what the models say, in the narrow schema that the API server takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from multiarchbuild.api.base import Model
from multiarchbuild.api.crd import crd, files, main, structural
from multiarchbuild.api.schema import MapBy, Rule, matches
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import Status

RESOURCE: dict[str, Any] = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def walk(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema with its path."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from walk(f"{path}.{name}", field)
    for entries in ("items", "additionalProperties"):
        if isinstance(schema.get(entries), dict):
            yield from walk(f"{path}[]", schema[entries])


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(Path(__file__).parents[3])))
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text("utf-8") == files()[path], "run make generate"


def test_check_names_a_file_that_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "crd.yaml"
    monkeypatch.setattr("multiarchbuild.api.crd.files", lambda: {stale: "new"})
    assert main(["--check"]) == 1
    assert f"{stale} is not what the models say: run make generate" in capsys.readouterr().err
    assert not stale.exists()
    assert main([]) == 0
    assert stale.read_text("utf-8") == "new"
    assert main(["--check"]) == 0


@pytest.mark.parametrize("model", [Spec, Status])
def test_every_field_is_described(model: type[Model]) -> None:
    fields = ((path, schema) for path, schema in walk(model.__name__, structural(model)) if not path.endswith("]"))
    assert [path for path, schema in fields if not schema.get("description", "").strip()] == []


def test_nothing_is_in_it_that_a_structural_schema_must_not_have() -> None:
    forbidden = {"$ref", "$defs", "title", "const", "nullable", "x-kubernetes-preserve-unknown-fields"}
    for path, schema in walk("", RESOURCE):
        assert not forbidden & schema.keys(), path
        assert schema.get("type") != "null", path
        assert ("type" in schema) != ("x-kubernetes-int-or-string" in schema), path
        assert not {"properties", "additionalProperties"} <= schema.keys(), path


def test_names_are_written_in_camel_case() -> None:
    for path, schema in walk("", RESOURCE):
        names = (*schema.get("properties", ()), *schema.get("required", ()))
        assert not [name for name in names if "_" in name or name[0].isupper()], path


class Inner(Model):
    """Inner, by itself."""

    some_text: Annotated[str, Field(max_length=9), matches("[a-z]+", "lower case")] = "abc"
    """A text."""


class Outer(Model):
    """Outer."""

    optional: Annotated[Inner, Rule("self.someText != ''", "not empty")] | None = None
    """Inner, where Outer
    uses it."""
    filled: Inner = Inner()
    """Filled in."""
    many: Annotated[tuple[Inner, ...], Field(max_length=2), MapBy("someText")] = ()
    """Many."""
    flag: bool = False
    """A flag."""


def test_references_are_written_out_where_they_are_used() -> None:
    text = {
        "description": "A text.",
        "type": "string",
        "default": "abc",
        "maxLength": 9,
        "x-kubernetes-validations": [{"rule": "self.matches(r'^[a-z]+$')", "message": "lower case"}],
    }
    inner = {"type": "object", "properties": {"someText": text}}
    assert structural(Outer) == {
        "description": "Outer.",
        "type": "object",
        "properties": {
            "optional": inner
            | {
                "description": "Inner, where Outer uses it.",
                "x-kubernetes-validations": [{"rule": "self.someText != ''", "message": "not empty"}],
            },
            "filled": inner | {"description": "Filled in.", "default": {}},
            "many": {
                "description": "Many.",
                "type": "array",
                "items": inner | {"description": "Inner, by itself."},
                "maxItems": 2,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["someText"],
            },
            "flag": {"description": "A flag.", "type": "boolean"},
        },
    }
