"""Plans: they are replayed by their names, and the same seed makes the same ones."""

from collections import Counter

import pytest

from tests.faults.rig.faults import Fault, Injection, Length, Plan, sample, several, singles
from tests.faults.rig.scenarios import SCENARIOS

LENGTHS = {"build": Length(5, 3, 8), "git": Length(7, 4, 10)}


def test_a_plan_is_read_from_its_name() -> None:
    for plan in [*singles(LENGTHS), *several(LENGTHS, 200, 1), Plan("build")]:
        assert Plan.parse(plan.name) == plan
    assert Plan.parse("git/timeout-after@17+drop@3").name == "git/timeout-after@17+drop@3"
    with pytest.raises(ValueError, match="is not a plan"):
        Plan.parse("git/timeout-after")
    with pytest.raises(ValueError, match="meteorite"):
        Plan.parse("git/meteorite@3")


def test_every_fault_is_planned_at_every_moment() -> None:
    planned = set(singles(LENGTHS))
    for name, length in LENGTHS.items():
        for fault in Fault:
            for at in range(length.of(fault)):
                assert Plan(name, (Injection(fault, at),)) in planned
    assert len(planned) == sum(8 * length.requests + 2 * length.own + 7 * length.events for length in LENGTHS.values())


def test_a_seed_makes_the_same_plans_in_which_each_scenario_and_fault_has_its_turn() -> None:
    lengths = {name: each.length for name, each in SCENARIOS.items()}
    plans = sample(lengths, 1200, 7)
    assert plans == sample(lengths, 1200, 7)
    assert plans != sample(lengths, 1200, 8)
    assert len(set(plans)) > 1190
    pairs = Counter((plan.scenario, plan.injections[0].fault) for plan in plans if len(plan.injections) == 1)
    assert pairs.keys() == {(name, fault) for name in SCENARIOS for fault in Fault}
    assert max(pairs.values()) - min(pairs.values()) <= 1


def test_only_plans_that_disturb_others_have_an_operator_of_their_own() -> None:
    assert Plan.parse("build/kill-after@3").alone
    assert Plan.parse("build/delay@3+gone@1").alone
    assert Plan.parse("build/drop@3+conflict@1").alone
    assert not Plan.parse("build/delay@3+conflict@1").alone
