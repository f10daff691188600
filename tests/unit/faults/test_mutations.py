"""Mutations are the same for the same seed, and reach every field."""

from collections import Counter

from multiarchbuild.api.crd import structural
from multiarchbuild.api.spec import Spec
from tests.faults.rig.mutations import fields, mutations, names_a_field, singles


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
