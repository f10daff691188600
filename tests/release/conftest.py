"""What the tests of releases share: the operator under test goes, and comes back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hack.install import CHART, NAMESPACE, RELEASE
from hack.target import Target


@pytest.fixture
def reinstalled(target: Target, operator: str) -> Iterator[dict[str, Any]]:
    """The values of the operator under test, which is installed again from this tree at the end."""
    del operator
    values = json.loads(helm(target, "get", "values", RELEASE, "--output", "json"))
    yield values
    helm(target, "uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout=5m")
    helm(target, "install", RELEASE, str(CHART), "--wait", "--timeout=5m", values=values)


def helm(target: Target, *arguments: str, values: dict[str, Any] | None = None) -> str:
    command = ("helm", *arguments, "--namespace", NAMESPACE)
    if values is None:
        return target.run(*command)
    return target.run(*command, "--values", "-", stdin=json.dumps(values))
