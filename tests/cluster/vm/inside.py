"""The guest's PID 1 once all is mounted: sets the machine of the node up, and keeps its programs running."""

import json
import os
import sys
from pathlib import Path

from tests.cluster import cgroups, init
from tests.cluster.spec import MachineSpec


def main() -> None:
    directory, instance = Path(sys.argv[1]), sys.argv[2]
    spec = MachineSpec.from_json(json.loads((directory / "spec.json").read_bytes()))
    for group in cgroups.create(instance, spec.name):
        (group / "cgroup.procs").write_text(str(os.getpid()))
    init.prepare(spec)
    init.supervise(spec, directory)


if __name__ == "__main__":
    main()
