import time
from pathlib import Path

import pytest

from multiarchbuild.steps.deadline import Deadline, deadline, seconds_left
from multiarchbuild.steps.mounts import Mounts

BEGAN = 1_000_000.0


@pytest.mark.parametrize(
    ("now", "until", "left"),
    [
        (BEGAN, BEGAN + 900, 895),
        # Pulling images has taken a minute of the pod's time.
        (BEGAN + 60, BEGAN + 900, 835),
        # The pod has waited 300 s for a node: the run ends before the pod.
        (BEGAN, BEGAN + 600, 595),
        # By the node's clock the run is over: the clocks differ.
        (BEGAN, BEGAN - 100, 895),
        (BEGAN, None, 895),
        # It has always a moment to say so.
        (BEGAN + 899, BEGAN + 900, 1),
    ],
)
def test_a_step_ends_shortly_before_its_pod_and_its_run(now: float, until: float | None, left: float) -> None:
    assert seconds_left(900, until, began=BEGAN, now=now) == left


def test_of_little_time_little_is_left_out() -> None:
    assert seconds_left(20, None, began=BEGAN, now=BEGAN) == 18


def test_the_pod_began_when_its_inputs_were_written(tmp_path: Path) -> None:
    inputs = tmp_path / "run/mab/inputs"
    inputs.mkdir(parents=True)
    (inputs / "inputs.json").write_text("{}")
    left = deadline(Mounts(tmp_path), 100, None).seconds
    assert left is not None
    assert 90 < left <= 95
    assert Deadline(time.monotonic() - 1).seconds == 0
    assert deadline(Mounts(tmp_path), None, None).seconds is None
