"""Samples of what `make faults` and `make mutate` do as a whole, and operators that come and go amid runs."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.rig import campaign, mutations
from tests.faults.rig.campaign import Rig
from tests.faults.rig.faults import Fault, Plan, sample
from tests.faults.rig.operator import Operator
from tests.faults.rig.scenarios import SCENARIOS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

SEED = int(os.environ.get("MAB_SEED", "1"))
PLANS = 48
MUTATIONS = 200


@pytest.fixture
async def rig(api_server: Path, tmp_path: Path) -> AsyncIterator[Rig]:
    """The rig on an API server of its own."""
    async with campaign.rig(api_server, tmp_path) as made:
        yield made


def problems(reports: list[campaign.Report]) -> list[str]:
    return [f"{report.plan.name}: {'; '.join(report.problems)}" for report in reports if report.problems]


async def test_every_scenario_ends_as_it_should_when_nothing_goes_wrong(rig: Rig) -> None:
    reports = await campaign.run(rig, [Plan(name) for name in SCENARIOS])
    assert problems(reports) == []
    assert campaign.operators_problems(rig) == []


async def test_a_sample_of_plans_in_which_something_goes_wrong(rig: Rig) -> None:
    lengths = {name: each.length for name, each in SCENARIOS.items()}
    plans = sample(lengths, PLANS, SEED)
    # Reads without a resource version are never stale (https://kubernetes.io/docs/reference/using-api/api-concepts/),
    # and no watch loses an event: it depends on the machine whether that is the last one about a pod. What comes of it
    # if either happens all the same is asked by `make faults` alone.
    impossible = {Fault.STALE, Fault.DROP}
    possible = [plan for plan in plans if impossible.isdisjoint(each.fault for each in plan.injections)]
    reports = await campaign.run(rig, possible)
    print(campaign.table(reports))
    assert problems(reports) == []
    assert sum(bool(report.fired) for report in reports) > len(reports) // 2


async def test_a_sample_of_mutated_builds(rig: Rig) -> None:
    outcomes = await mutations.run(rig, mutations.mutations(MUTATIONS, SEED))
    assert [f"{each.mutation.name}: {each.problem}" for each in outcomes if each.problem] == []
    assert campaign.operators_problems(rig) == []
    assert {each.refused for each in outcomes} == {True, False}


async def test_one_operator_two_and_one_again_in_the_middle_of_runs(rig: Rig, tmp_path: Path) -> None:
    await rig.shared.kill()
    one, other = (Operator(rig.proxy.url, tmp_path / name, times=rig.times) for name in ("one", "other"))
    one.start()
    running = asyncio.ensure_future(campaign.run(rig, [Plan(name) for name in SCENARIOS] * 2))
    for leaves, comes in ((one, other), (other, one), (one, other)):
        comes.start()
        await asyncio.sleep(4)
        await leaves.kill(signal.SIGTERM)
        await asyncio.sleep(2)
    try:
        assert problems(await running) == []
        assert other.runs
        assert [line for each in (one, other) for line in each.lines("error")] == []
    finally:
        for each in (one, other):
            await each.kill()


async def test_an_api_server_that_is_away_for_a_while(rig: Rig) -> None:
    running = asyncio.ensure_future(campaign.run(rig, [Plan(name) for name in SCENARIOS]))
    seconds = float(os.environ.get("MAB_AWAY_SECONDS", "15"))
    await asyncio.sleep(3)
    rig.proxy.away.set()
    await asyncio.sleep(seconds)
    rig.proxy.away.clear()
    assert problems(await running) == []
    assert rig.shared.starts == 1
    assert rig.shared.runs
