"""Operators of the rig end with it."""

import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.processes import Process
from tests.faults.rig.operator import SHORT, at_pace

RIG = """
import sys, time
from pathlib import Path
from tests.faults.rig.operator import Operator
operator = Operator("http://127.0.0.1:1", Path(sys.argv[1]), "--no-leader-elect")
operator.start()
while not operator.log.exists() or "started" not in operator.log.read_text():
    time.sleep(0.05)
print(operator.pid, flush=True)
time.sleep(600)
"""


def test_a_rig_that_is_killed_leaves_no_operator(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", RIG, str(tmp_path)], stdout=subprocess.PIPE, text=True) as rig:
        assert rig.stdout is not None
        operator = Process.of(int(rig.stdout.readline()))
        assert operator is not None
        rig.kill()
        rig.wait()
    end = time.monotonic() + 60
    while operator.alive:
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.1)


def test_a_slower_machine_has_longer_times_in_the_same_order() -> None:
    assert at_pace(1.0) == SHORT
    slow = at_pace(3.0)
    silence, stable = (slow[f"multiarchbuild.controller.stream.{name}_SECONDS"] for name in ("SILENCE", "STABLE"))
    assert (silence, stable) == (12.0, 3.0)
    assert slow.keys() == SHORT.keys()
