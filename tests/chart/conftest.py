"""What the tests of the chart share."""

from collections.abc import Iterator

import pytest

from hack.target import Target
from tests.support import monitoring


@pytest.fixture(scope="session")
def prometheus(target: Target) -> Iterator[None]:
    """The definitions of the Prometheus operator."""
    files = [argument for path in monitoring.definitions() for argument in ("-f", str(path))]
    target.kubectl("apply", "--server-side", "--force-conflicts", *files)
    target.kubectl("wait", "--for=condition=Established", "--timeout=30s", *files)
    yield
    target.kubectl("delete", "--wait=false", "--ignore-not-found", *files)
