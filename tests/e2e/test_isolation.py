"""Isolations other than the default one, which every other test builds with."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from hack.target import Target
from multiarchbuild.plan.children import node_from
from tests.support.operator_process import in_place_of_the_installed
from tests.support.pace import slowness
from tests.support.tenant import AMD64, Tenant, condition, platform

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("alone")]

SOON = 30
"""Seconds for what needs no waiting, on an idle machine."""


@pytest.fixture
def isolation(target: Target, operator: str, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Let an operator work whose policy demands another isolation, until the test ends."""
    del operator
    with ExitStack() as stack:

        def demand(kind: str) -> None:
            process = stack.enter_context(in_place_of_the_installed(target, tmp_path))
            policy = yaml.safe_load(process.policy.read_text(encoding="utf-8"))
            process.policy.write_text(yaml.safe_dump({**policy, "isolation": kind}), encoding="utf-8")
            process.start()

        yield demand


def test_privileged_builds_with_the_image_that_is_not_rootless(
    isolation: Callable[[str], None], tenant: Tenant
) -> None:
    isolation("Privileged")
    build = tenant.build(platforms=[AMD64])
    build.succeeded()
    (builder,) = (pod["spec"]["initContainers"][0] for pod in build.pods() if "initContainers" in pod["spec"])
    assert builder["image"] == "moby/buildkit:v0.32.2"
    assert builder["securityContext"]["privileged"] is True


def test_a_user_namespace_serves_or_its_node_is_told(isolation: Callable[[str], None], tenant: Tenant) -> None:
    nodes = json.loads(tenant.target.kubectl("get", "nodes", "-l", "kubernetes.io/arch=amd64", "-o", "json"))["items"]
    says = {node_from(node).user_namespaces for node in nodes}
    assert len(says) == 1, "nodes of one kind"
    isolation("UserNamespace")
    build = tenant.build(platforms=[AMD64])
    if says == {True}:
        status = build.succeeded()
        assert {pod["spec"].get("hostUsers", True) for pod in build.pods() if "initContainers" in pod["spec"]} == {
            False
        }
        return
    status = build.failed("BuilderUnsupported")
    message = condition(status, "Ready")["message"]
    assert f"node {platform(status, AMD64)['node']} cannot give pod" in message
    assert "a user namespace: " in message
    assert "isolation: Rootless" in message
    created = datetime.fromisoformat(build.get()["metadata"]["creationTimestamp"])
    took = (datetime.fromisoformat(status["run"]["finishedAt"]) - created).total_seconds()
    assert says == {None} or took < SOON * slowness()
