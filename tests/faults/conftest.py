"""What the tests of faults share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.target import Target
from tests.support.operator_process import OperatorProcess, in_place_of_the_installed


@pytest.fixture
def process(target: Target, operator: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator as a process, in place of the installed one."""
    assert operator
    with in_place_of_the_installed(target, tmp_path) as process:
        yield process
