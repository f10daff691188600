"""The operator's policy file: YAML that is read once at start, with one clear line for each mistake in it."""

import ssl
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from multiarchbuild.plan.policy import Policy


class PolicyError(Exception):
    """The policy file can't be used. The message has one line for each mistake."""


def load_policy(path: Path | None) -> Policy:
    """Return the policy in the file, or the defaults when there is no file.

    Raises:
        PolicyError: The file can't be read, is no YAML, or says something that a policy can't.
    """
    if path is None:
        return Policy()
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PolicyError(f"{path}: is not valid YAML: {error}") from error
    if data is None:
        return Policy()
    if not isinstance(data, dict):
        raise PolicyError(f"{path}: must be a mapping such as `isolation: Rootless`")
    try:
        # `extra`: what is ignored when it is read back from a cluster is a mistake when a person wrote it.
        policy = Policy.model_validate(data, extra="forbid")
    except ValidationError as error:
        lines = [f"{path}: {_field(entry['loc'])}: {_mistake(entry)}" for entry in error.errors()]
        raise PolicyError("\n".join(lines)) from error
    if wrong := [f"{path}: {field}: {mistake}" for field, mistake in _certificates(policy)]:
        raise PolicyError("\n".join(wrong))
    return policy


class _Loader(yaml.SafeLoader):
    """Refuses what YAML forbids and PyYAML takes: a key that is there twice (the first would be lost)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key} is set twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _field(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _mistake(entry: Any) -> str:
    if entry["type"] == "extra_forbidden":
        *parents, name = entry["loc"]
        near = get_close_matches(str(name), _names(parents), n=1)
        hint = f", did you mean {near[0]}?" if near else f": use one of {', '.join(_names(parents))}"
        return f"unknown field{hint}"
    value = entry["input"]
    said = str(entry["msg"].removeprefix("Value error, "))
    hidden = said.startswith("must not hold a user or password")
    shown = f", not {value!r}" if isinstance(value, str | int | float | bool) and not hidden else ""
    return f"{said}{shown}"


def _certificates(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield a field and what is wrong with its certificates, for each one that programs could not read later."""
    bundles = {"caBundle": policy.ca_bundle} | {
        f"registries[{number}].caBundle": registry.ca_bundle for number, registry in enumerate(policy.registries)
    }
    for number, tenant in enumerate(policy.tenants):
        if tenant.signing.keyless:
            bundles[f"tenants[{number}].signing.keyless.caBundle"] = tenant.signing.keyless.ca_bundle
    for field, bundle in bundles.items():
        if not bundle:
            continue
        try:
            ssl.create_default_context(cadata=bundle)
        except (ssl.SSLError, ValueError):
            yield field, "has no readable certificate: expected -----BEGIN CERTIFICATE-----"


def _names(parents: list[int | str]) -> list[str]:
    """Return the fields of the model at this place of the policy."""
    model: type[BaseModel] = Policy
    for parent in parents:
        for name, field in model.model_fields.items():
            if parent in {name, field.alias}:
                inner = (field.annotation, *getattr(field.annotation, "__args__", ()))
                model = next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return [field.alias or name for name, field in model.model_fields.items()]
