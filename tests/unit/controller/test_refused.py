"""Specs that can't be read, and when the API server is asked again for what it refused."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import Status
from multiarchbuild.controller.refused import (
    COMES_SECONDS,
    REFUSED_SECONDS,
    WORDS_SECONDS,
    Refusals,
    invalid_spec,
)
from multiarchbuild.plan.not_created import NotCreated
from tests.unit.controller.test_queue import Time
from tests.unit.plan.world import GIT, POLLED, START, World, manifest, spec

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def conditions(status: Status) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def test_a_spec_that_cannot_be_read_names_the_field() -> None:
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate(spec(source={"inline": {"files": {"a": "", "a/b": ""}}}))
    status = invalid_spec(Status(), caught.value, 3, NOW)
    assert conditions(status) == {"Ready": ("False", "InvalidSpec"), "Stalled": ("True", "InvalidSpec")}
    assert (
        "source.inline.files: Value error, 'a' cannot be a file and, for 'a/b', a folder"
        in status.conditions[0].message
    )


def test_the_api_server_is_not_asked_again_too_soon() -> None:
    time = Time()
    refusals = Refusals(lambda: time.now)
    assert refusals.standing("pod") is None
    assert refusals.refused("pod", "no") == "no"
    time.move(REFUSED_SECONDS - 1)
    assert refusals.standing("pod") == "no"
    assert refusals.standing("another") is None
    time.move(1)
    assert refusals.standing("pod") is None
    refusals.refused("pod", "no")
    refusals.created("pod")
    assert refusals.standing("pod") is None


def test_what_may_have_been_applied_together_with_a_build_is_waited_for_a_while() -> None:
    time = Time()
    refusals = Refusals(lambda: time.now)
    assert not refusals.is_awaited("pod")
    assert refusals.may_come("pod")
    assert refusals.is_awaited("pod")
    time.move(COMES_SECONDS - 1)
    assert refusals.may_come("pod")
    time.move(1)
    assert not refusals.may_come("pod")
    assert refusals.may_come("another")
    refusals.created("pod")
    assert refusals.may_come("pod")


def test_other_ids_in_the_same_words_are_the_same_refusal() -> None:
    time = Time()
    refusals = Refusals(lambda: time.now)
    said = refusals.refused("pod", "denied (request 5f6c1f0e-5f3e)")
    for _ in range(1000):
        time.move(REFUSED_SECONDS)
        assert refusals.refused("pod", f"denied (request 7{time.now:.0f})") == said


def test_other_words_are_quoted_though_not_at_once() -> None:
    time = Time()
    refusals = Refusals(lambda: time.now)
    quoted = set()
    for number in range(int(300 / REFUSED_SECONDS)):
        word = "abcdefghij"[number]
        quoted.add(refusals.refused("pod", f"denied by {word}"))
        time.move(REFUSED_SECONDS)
    assert 2 <= len(quoted) <= 1 + 300 / WORDS_SECONDS


@dataclass
class Refusing(World):
    """A cluster whose API server refuses to create some kinds of children, in `words`."""

    kinds: frozenset[str] = frozenset()
    words: Callable[[int], str] = str
    asked: int = 0
    refusals: Refusals = field(init=False)

    def __post_init__(self) -> None:
        self.refusals = Refusals(self.seconds)

    def seconds(self) -> float:
        return (self.now - START).total_seconds()

    def _create(self, kind: dict[str, dict[str, Any]], created: dict[str, Any]) -> NotCreated:
        name = created["metadata"]["name"]
        if created["kind"] not in self.kinds:
            return super()._create(kind, created)
        if (standing := self.refusals.standing(name)) is None:
            self.asked += 1
            standing = self.refusals.refused(name, f"{name} is forbidden: {self.words(self.asked)}")
        return NotCreated(refused={name: standing})


def random_words(number: int) -> str:
    """Return words that are never twice the same, of another number each time."""
    rng = random.Random(number)
    letters = ["".join(rng.choices("abcdef", k=rng.randint(1, 9))) for _ in range(rng.randint(1, 9))]
    return f"denied by {' '.join(letters)}"


def random_id(number: int) -> str:
    return f"denied (request {random.Random(number).getrandbits(64):016x})"


def two_in_turn(number: int) -> str:
    return f"denied by webhook {'abc'[number % 3]}"


@pytest.mark.parametrize("words", [random_id, random_words, two_in_turn])
@pytest.mark.parametrize("kind", ["Pod", "ConfigMap"])
@pytest.mark.parametrize("fields", [{}, {"source": GIT}, {"source": POLLED}, {"platforms": ["linux/amd64"]}])
def test_a_refusal_costs_five_writes_of_status_in_five_minutes(
    fields: dict[str, Any], kind: str, words: Callable[[int], str]
) -> None:
    world = Refusing(manifest(**fields), kinds=frozenset({kind}), words=words)
    writes, children = 0, len(world.decide().before)
    for _ in range(60):
        # Something makes it look all the time.
        before = world.resource.get("status")
        world.reconcile()
        writes += world.resource["status"] != before
        world.advance(5)
    assert 1 <= writes <= 5
    assert world.asked <= children * 300 / REFUSED_SECONDS


@pytest.mark.timeout(60)
@pytest.mark.parametrize("word", ["a" * 400_000, "a1" * 200_000, "1" * 400_000], ids=lambda word: word[:2])
def test_an_answer_may_be_of_one_long_word(word: str) -> None:
    refusals = Refusals(lambda: 0.0)
    assert refusals.refused("pod", f"denied {word}") == f"denied {word}"
