"""Mutations are the same for the same seed, and reach every field."""

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from multiarchbuild.api.crd import structural
from multiarchbuild.api.spec import Spec
from tests.faults.rig import mutations as rig
from tests.faults.rig.campaign import Rig
from tests.faults.rig.mutations import Mutation, fields, mutations, names_a_field, singles
from tests.faults.rig.scenarios import Case


def test_every_field_is_changed_in_many_ways() -> None:
    found = Counter(path for path, _ in singles())
    assert found.keys() == {path for path, _ in fields("", structural(Spec))}
    assert len(found) > 100
    assert min(found.values()) > 60


def test_a_seed_makes_the_same_mutations() -> None:
    wanted = [each.name for each in mutations(1000, 3)]
    assert wanted == [each.name for each in mutations(1000, 3)]
    assert wanted != [each.name for each in mutations(1000, 4)]
    assert len(wanted) == 1000
    assert sum(", spec." in name for name in wanted) > 300, "pairs of fields"


def test_what_a_message_names() -> None:
    assert names_a_field('spec.source.git.url: Invalid value: ""', ("spec.source.git.url",))
    assert names_a_field("spec.output.tags[0]: Too long", ("spec.output.tags[0]",))
    assert names_a_field("spec.build.args: each name must be …", ("spec.build.args.NODE_ENV",))
    assert not names_a_field("the object is invalid", ("spec.source.git.url",))
    assert not names_a_field("spec.output.image: Required value", ("spec.timeout",))


async def test_what_is_seen_before_the_answer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the operator may be done with a build before the request that has created it is answered."""
    monkeypatch.setattr(rig, "SECONDS", 0.1)
    cases: dict[str, Case] = {}
    ready = {"type": "Ready", "status": "False", "reason": "PolicyDenied", "message": "no"}

    async def create(path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        del path
        for case in cases.values():
            case.seen("ADDED", {"metadata": {"uid": "1"}, "status": {"conditions": [ready]}})
        return manifest

    async def delete(*_: object) -> None:
        pass

    made = cast("Rig", SimpleNamespace(api=SimpleNamespace(create=create, delete=delete), cases=cases))
    outcome = await rig.attempt(made, Mutation("spec.timeout = 1h", ("spec.timeout",), {}), 0)
    assert outcome.problem == ""
    assert cases == {}
