"""Two installations in one cluster: where they serve the same namespace, one works and the other waits."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from multiarchbuild.controller.installations import SERVES
from multiarchbuild.controller.leader import LEASE

from .conftest import Kubectl, Operator, OperatorFactory, eventually, in_namespace, new_namespace

pytestmark = pytest.mark.api


@pytest.fixture
def elsewhere(kubectl: Kubectl, kubeconfig: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Another namespace, and a kubeconfig whose Lease is there."""
    with new_namespace(kubectl) as name:
        yield name, in_namespace(kubeconfig, name, tmp_path / "elsewhere")


def claimed(kubectl: Kubectl, namespace: str) -> str | None:
    lease = json.loads(kubectl("get", "lease", LEASE, "-n", namespace, "-o", "json"))
    annotations: dict[str, str] = lease["metadata"].get("annotations", {})
    return annotations.get(SERVES)


async def waiting(operator: Operator) -> None:
    """Wait until it says that it does nothing."""

    async def check() -> bool:
        status, text = operator.get("/readyz")
        return status == 503 and "[-] no other installation serves its namespaces" in text

    await eventually("it waits for the other installation", check)


async def test_the_second_installation_waits_and_says_for_whom(
    namespace: str, elsewhere: tuple[str, Path], kubectl: Kubectl, operator: OperatorFactory
) -> None:
    other, kubeconfig = elsewhere
    first = await operator().leading()
    second = operator("--namespace", namespace, other, kubeconfig=kubeconfig)
    await waiting(second)
    (told,) = second.lines(level="warning")
    assert "another installation of the operator serves these namespaces" in told["event"]
    assert told["others"] == {namespace: namespace}
    assert "watches" not in second.get("/readyz")[1]
    assert claimed(kubectl, namespace) == namespace

    async def withdrawn() -> bool:
        return claimed(kubectl, other) is None

    await eventually("it is known for nothing", withdrawn)

    # An upgrade of the first one hands nothing over.
    first.terminate()
    again = await operator().leading()
    await waiting(second)

    again.terminate()
    kubectl("delete", "lease", LEASE, "-n", namespace)  # else after a minute
    await second.leading()

    async def is_claimed() -> bool:
        return claimed(kubectl, other) == ",".join(sorted((namespace, other)))

    await eventually("it is known for that", is_claimed)
    third = operator()
    await waiting(third)


async def test_of_two_that_begin_at_the_same_moment_one_works(
    namespace: str, elsewhere: tuple[str, Path], operator: OperatorFactory
) -> None:
    other, kubeconfig = elsewhere
    both = [operator(), operator("--namespace", namespace, other, kubeconfig=kubeconfig)]
    seen: list[list[bool]] = []

    def works(each: Operator) -> bool:
        status, text = each.get("/readyz")
        return status == 200 and "watches" in text

    async def check() -> bool:
        seen.append([works(each) for each in both])
        # For as long as it takes them to look at each other.
        return len(seen) > 40 and all(sum(look) == 1 for look in seen[-40:])

    await eventually("one works", check)
    assert all(sum(look) <= 1 for look in seen), "never both"
    assert all(each.process.poll() is None for each in both)


async def test_installations_for_other_namespaces_do_not_wait(
    namespace: str, elsewhere: tuple[str, Path], operator: OperatorFactory
) -> None:
    other, kubeconfig = elsewhere
    assert namespace != other
    await operator().leading()
    await operator("--namespace", other, kubeconfig=kubeconfig).leading()
