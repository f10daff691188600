"""What the tests of the chart share."""

from pathlib import Path

import pytest

from hack.target import Target
from tests.cluster.locks import locked
from tests.support import monitoring
from tests.support.crds import await_established


@pytest.fixture(scope="session")
def prometheus(target: Target, shared: Path) -> None:
    """The definitions of the Prometheus operator. They stay, as another worker may use them."""
    files = [argument for path in monitoring.definitions() for argument in ("-f", str(path))]
    with locked(shared / "prometheus.lock", waiting="waiting for another worker to install CRDs"):
        target.kubectl("apply", "--server-side", "--force-conflicts", *files)
        await_established(target.kubectl, *files)
