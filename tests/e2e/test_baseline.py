"""Builds in a namespace that enforces Pod Security `baseline`, with the profile that the chart lays down."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.install import CHART
from hack.target import Target
from multiarchbuild.api.nodes import APP_ARMOR_PROFILE_LABEL, PROFILE_FILE, PROFILE_LABEL, PROFILE_VERSION
from multiarchbuild.profile import apparmor
from tests.support.chart import left_of
from tests.support.operator_process import in_place_of_the_installed
from tests.support.rollout import restarted_while_labelled
from tests.support.tenant import AMD64, ARM64, Tenant, inline, platform
from tests.support.watch import Objects, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("alone")]

DOCKERFILE = """
FROM busybox:1.36 AS tools
RUN mkdir -p /out && chown 1234:1234 /out
RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/scratch \\
    dd if=/dev/zero of=/scratch/zero bs=1k count=4 && cp /scratch/zero /cache/ && mknod /out/pipe p
RUN --network=none --mount=type=bind,source=Dockerfile,target=/Dockerfile cat /Dockerfile > /out/copy
USER 1234
RUN id -u > /out/id && ln -s id /out/link
FROM busybox:1.36
COPY --from=tools --chown=1234:1234 /out/ /out/
RUN test "$(cat /out/link)" = 1234 && hostname > /name
"""
"""What makes use of namespaces, mounts, owners and devices."""

REFUSED = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in (425, 323, 304):  # io_uring_setup, userfaultfd, open_by_handle_at of x86_64
    print(libc.syscall(number, -1, -1, -1), ctypes.get_errno())
"""


@pytest.fixture
def baseline(target: Target, tenant: Tenant, tmp_path: Path) -> Iterator[Tenant]:
    """A namespace that enforces `baseline`, and an operator whose policy demands the profile."""
    target.kubectl("label", "namespace", tenant.namespace, "pod-security.kubernetes.io/enforce=baseline")
    with in_place_of_the_installed(target, tmp_path) as process:
        process.change_policy(rootless={"profile": "Localhost"})
        process.start()
        yield tenant


@pytest.fixture
def elsewhere(target: Target) -> Iterator[str]:
    """A namespace for the DaemonSet, which mounts a folder of the node."""
    name = "baseline-profile"
    target.kubectl("create", "namespace", name)
    yield name
    target.kubectl("delete", "namespace", name)


def labels(target: Target, key: str = PROFILE_LABEL) -> set[str | None]:
    """Return the values that a label has on nodes."""
    nodes = json.loads(target.kubectl("get", "nodes", "-o", "json"))["items"]
    return {node["metadata"]["labels"].get(key) for node in nodes}


def everything(target: Target, namespace: str, release: str) -> list[str]:
    """Return the names of the release's pods."""
    selector = f"app.kubernetes.io/instance={release}"
    return target.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "name").split()


def until_labelled(target: Target, value: str | None) -> None:
    """Wait until the label has this value on all nodes."""

    def check(nodes: Objects) -> bool:
        found = {node["metadata"]["labels"].get(PROFILE_LABEL) for node in nodes.values()}
        return len(nodes) == len(target.nodes) and found == {value}

    wait_for(target, "nodes", until=check, why=f"nodes have {PROFILE_LABEL}={value}")


def test_where_baseline_is_enforced_builds_run_on_nodes_that_have_the_profile(
    target: Target, operator: str, baseline: Tenant, elsewhere: str
) -> None:
    assert labels(target) == {None}
    build = baseline.build(source=inline(DOCKERFILE), scheduling={"strategy": "Native"})
    status = build.until(
        lambda status: {entry.get("reason") for entry in status.get("run", {}).get("platforms", ())} == {"NoBuilder"}
    )
    wanted = f"{PROFILE_LABEL}={PROFILE_VERSION} or {APP_ARMOR_PROFILE_LABEL}={PROFILE_VERSION}"
    assert f"{wanted} as the operator's policy demands" in platform(status, AMD64)["message"]

    repository, tag = operator.rsplit(":", 1)
    values: dict[str, Any] = {
        "image": {"repository": repository, "tag": tag},
        "replicas": 0,
        "namespaces": [elsewhere],
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "profile": {"enabled": True, "verifySeconds": 5},
    }
    # The local cluster's containerd uses no AppArmor, whatever the kernel has.
    without_app_armor = bool(target.facts.instance) and not apparmor.is_enabled()
    if target.facts.instance:
        values["profile"] |= {"kubeletDirectory": "/run/machine/kubelet", "appArmor": without_app_armor}
    release = "baseline"
    chart = ("helm", "install", release, str(CHART), "--namespace", elsewhere, "--values", "-")
    target.run(*chart, "--wait", "--timeout=5m", stdin=json.dumps(values))
    try:
        until_labelled(target, PROFILE_VERSION)
        status = build.succeeded()
        assert {platform(status, name)["mode"] for name in (AMD64, ARM64)} == {"Native"}
        builders = [pod["spec"]["initContainers"][0] for pod in build.pods() if "initContainers" in pod["spec"]]
        assert [each["securityContext"]["seccompProfile"] for each in builders] == [
            {"type": "Localhost", "localhostProfile": PROFILE_FILE}
        ] * 2

        selector = f"app.kubernetes.io/instance={release},app.kubernetes.io/name=multiarchbuild-profile"
        pods = json.loads(target.kubectl("get", "pods", "-n", elsewhere, "-l", selector, "-o", "json"))["items"]
        native = next(pod for pod in pods if target.nodes[pod["spec"]["nodeName"]] == "amd64")
        if without_app_armor:
            said = target.kubectl("logs", "-n", elsewhere, native["metadata"]["name"], "-c", "label")
            assert "this node has no AppArmor" in said
            assert not any("appArmorProfile" in each["securityContext"] for each in builders)
            assert not [pod for pod in everything(target, elsewhere, release) if "-apparmor-" in pod]
        command = ("exec", "-n", elsewhere, native["metadata"]["name"], "-c", "label", "--", "python", "-c", REFUSED)
        assert target.kubectl(*command).splitlines() == ["-1 1"] * 3, "the profile refuses them: EPERM"

        # The label of an earlier version, which another DaemonSet answers for, keeps none from labelling.
        target.kubectl("label", "node", native["spec"]["nodeName"], f"{APP_ARMOR_PROFILE_LABEL}=0")
        daemonset = f"{release}-multiarchbuild-profile"
        restarted_while_labelled(target, elsewhere, daemonset, selector, {PROFILE_LABEL: PROFILE_VERSION})

        upgrade = ("helm", "upgrade", release, str(CHART), "--namespace", elsewhere, "--reuse-values")
        target.run(*upgrade, "--set", "profile.appArmor=false", "--wait", "--timeout=5m")
        assert labels(target, APP_ARMOR_PROFILE_LABEL) == {None}, "no DaemonSet loads that profile any more"
        assert labels(target) == {PROFILE_VERSION}
    finally:
        target.run("helm", "uninstall", release, "--namespace", elsewhere, "--wait", "--timeout=5m")
        target.kubectl("label", "node", "--all", f"{APP_ARMOR_PROFILE_LABEL}-")
    assert labels(target) == {None}
    assert left_of(target, release) == set()
