"""A small load: what a build costs, by counts and ratios that no slow machine changes."""

from pathlib import Path

import pytest

from tests.cluster.fixture import control_plane_layout

from .many import many
from .stage import stage

pytestmark = pytest.mark.api

BUILDS = 30


async def test_what_a_build_costs(api_server: Path, tmp_path: Path) -> None:
    del api_server  # which is up
    async with stage(control_plane_layout(), tmp_path) as made:
        run = await many(made, builds=BUILDS, namespaces=10)
    print("\n".join(f"{name:32} {value}" for name, value in run.rows()))
    assert run.errors == ()
    assert run.per_build(run.reads) <= 5
    # `make load` holds 14 for a thousand. Of so few, each that is looked at once more while other tests have the
    # machine counts: one in two may be.
    assert run.per_build(run.writes) <= 14.5
    # So few take little longer than one, whose steps take their time: beside those, what does writing the objects take?
    # It is measured at another moment, in which other tests may leave more of the machine.
    assert run.seconds <= run.lone_seconds + 3 * run.floor_seconds
    assert run.ready_seconds[0] <= 2 * run.lone_seconds, "what has begun goes before what has not"
    assert run.cpu_seconds < 3 * run.floor_cpu_seconds, "in terms of the script that does that"
