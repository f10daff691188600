"""What the tests of the chart share."""

from pathlib import Path

import pytest

from hack.target import Target
from tests.cluster.locks import locked
from tests.support import monitoring
from tests.support.crds import establish


@pytest.fixture(scope="session")
def prometheus(target: Target, shared: Path) -> None:
    """The definitions of the Prometheus operator. They stay, as another worker may use them."""
    with locked(shared / "prometheus.lock", waiting="waiting for another worker to install CRDs"):
        establish(target, monitoring.definitions())
