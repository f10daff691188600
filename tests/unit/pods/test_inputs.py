"""The run's ConfigMap fits into the API server, whatever the spec and the policy hold."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from multiarchbuild.api.source import MAX_INLINE_BYTES, InlineSource
from multiarchbuild.api.spec import MAX_SPEC_BYTES
from multiarchbuild.plan.actions import EnsureInputs
from multiarchbuild.plan.policy import MAX_BUNDLES, MAX_REGISTRIES, Policy
from multiarchbuild.pods import render
from tests.unit.plan.world import build

CONFIG_MAP = 1024 * 1024
"""Bytes of the values of a ConfigMap (apimachinery, pkg/apis/core/validation, MaxSecretSize)."""
REQUEST = 3 * 1024 * 1024
"""Bytes of a request that the API server reads (limit is 3145728)."""
HOSTILE = ("a", "\n", '"', "\\", "\x01", "\x1f", "\x7f", "é", "\N{EURO SIGN}", "\N{PILE OF POO}", "\N{LINE SEPARATOR}")


def long(character: str, size: int) -> str:
    """Return as much of a character as fits into `size` bytes."""
    return character * (size // len(character.encode()))


@given(
    contents=st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=8),
    values=st.sampled_from(HOSTILE),
    count=st.integers(0, 64),
    length=st.sampled_from([0, 100, 4096]),
    registries=st.integers(0, 300),
    bundle=st.sampled_from([0, 1000, MAX_BUNDLES // 2]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_accepted_always_fits(
    contents: list[str], values: str, count: int, length: int, registries: int, bundle: int
) -> None:
    files = {f"{number}": long(text, MAX_INLINE_BYTES // len(contents)) for number, text in enumerate(contents)}
    args = {f"A{number}": long(values, length) for number in range(count)}
    hosts = [{"host": f"r{number}.{'x' * 200}.test", "mirrors": ["m.test"]} for number in range(registries)]
    try:
        policy = Policy.model_validate(
            {"registries": [*hosts, {"host": "r.test", "caBundle": "x" * bundle}], "caBundle": "x" * bundle}
        )
        made = build(source={"inline": {"files": files}}, build={"args": args, "labels": args})
    except ValidationError as error:
        assert "of at most" in str(error)  # noqa: PT017
        return
    manifest = render(EnsureInputs("in", "run1"), made, policy)
    assert sum(len(value.encode()) for value in manifest["data"].values()) <= CONFIG_MAP
    assert len(json.dumps(manifest)) <= REQUEST, "as the client writes it"


def test_the_parts_fit_together() -> None:
    names, toml = 64 * 2 * 300, 2 * MAX_REGISTRIES
    assert MAX_INLINE_BYTES + MAX_SPEC_BYTES + MAX_BUNDLES + MAX_REGISTRIES + names + toml < CONFIG_MAP


@pytest.mark.parametrize("character", ["a", "é", "\N{PILE OF POO}", "\x01"])
def test_inline_files_are_measured_in_bytes(character: str) -> None:
    assert InlineSource(files={"a": long(character, MAX_INLINE_BYTES)})
    with pytest.raises(ValidationError, match=r"of at most 262144: put a larger source into git \(source.git\)"):
        InlineSource(files={"a": long(character, MAX_INLINE_BYTES), "b": character})


def test_a_file_that_is_not_text_is_named() -> None:
    with pytest.raises(ValidationError, match="'b' holds a NUL character and so is not text"):
        InlineSource(files={"a": "", "b": "a\0b"})


def too_large(**spec: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        build(**spec)
    return str(raised.value)


def test_a_spec_that_is_too_large_names_what_to_shorten() -> None:
    values = {f"A{number}": "x" * 4096 for number in range(64)}
    assert build(build={"args": {name: text[:2000] for name, text in values.items()}})
    assert "shorten build.args, build.labels" in too_large(build={"args": values})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"caBundle": "x" * (MAX_BUNDLES + 1)}, "leave out what the system's CAs have"),
        (
            {"registries": [{"host": f"{number}.test", "caBundle": "x" * 60_000} for number in range(5)]},
            "caBundle, registries[].caBundle and signing.keyless.caBundle have 300000 bytes together",
        ),
        ({"registries": [{"host": f"{number}.{'x' * 200}"} for number in range(400)]}, "registries has"),
    ],
)
def test_a_policy_that_leaves_no_room_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Policy.model_validate(fields)
    assert words in str(raised.value)
