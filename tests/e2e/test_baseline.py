"""Builds in a namespace that enforces Pod Security `baseline`, with the profile that the chart lays down."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hack.install import CHART
from hack.target import Target
from multiarchbuild.api.nodes import (
    APP_ARMOR_LABEL,
    APP_ARMOR_PROFILE,
    APP_ARMOR_PROFILE_LABEL,
    PROFILE_FILE,
    PROFILE_LABEL,
    PROFILE_VERSION,
)
from multiarchbuild.profile import apparmor
from multiarchbuild.profile.load import is_loaded
from tests.cluster import cgroups
from tests.support.chart import left_of
from tests.support.gate import Gate
from tests.support.operator_process import in_place_of_the_installed
from tests.support.poll import until
from tests.support.rollout import restarted_while_labelled
from tests.support.tenant import AMD64, ARM64, Build, Tenant, inline, platform
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

RELEASE = "baseline"
CONFINED = f"{APP_ARMOR_PROFILE} (enforce)"
CAPTIVE = f"""
RUN test "$(cat /proc/self/attr/current)" = "{CONFINED}"
RUN ! echo -n changeprofile unconfined > /proc/self/attr/current
"""
"""What is confined, and stays so."""


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


def until_labelled(target: Target, wanted: dict[str, str | None]) -> None:
    """Wait until all nodes have these labels, and none of those whose value is None."""

    def check(nodes: Objects) -> bool:
        found = [node["metadata"]["labels"] for node in nodes.values()]
        right = all(labels.get(key) == value for labels in found for key, value in wanted.items())
        return right and len(nodes) == len(target.nodes)

    wait_for(target, "nodes", until=check, why=f"nodes are labelled {wanted}")


@contextmanager
def installed(target: Target, image: str, namespace: str, **profile: Any) -> Iterator[None]:
    """Have the chart's DaemonSets for the block, with these values of `profile`; then see that nothing is left."""
    repository, tag = image.rsplit(":", 1)
    if target.facts.instance:
        profile["kubeletDirectory"] = "/run/machine/kubelet"
    values: dict[str, Any] = {
        "image": {"repository": repository, "tag": tag},
        "replicas": 0,
        "namespaces": [namespace],
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "profile": {"enabled": True, "verifySeconds": 5, **profile},
    }
    chart = ("helm", "install", RELEASE, str(CHART), "--namespace", namespace, "--values", "-")
    target.run(*chart, "--wait", "--timeout=5m", stdin=json.dumps(values))
    try:
        yield
    finally:
        target.run("helm", "uninstall", RELEASE, "--namespace", namespace, "--wait", "--timeout=5m")
        target.kubectl("label", "node", "--all", f"{APP_ARMOR_PROFILE_LABEL}-")
    assert [labels(target, key) for key in (PROFILE_LABEL, APP_ARMOR_LABEL)] == [{None}, {None}]
    assert left_of(target, RELEASE) == set()


def without_app_armor_profile(target: Target, namespace: str) -> None:
    """Upgrade the release to one that loads no AppArmor profile."""
    upgrade = ("helm", "upgrade", RELEASE, str(CHART), "--namespace", namespace, "--reuse-values")
    target.run(*upgrade, "--set", "profile.appArmor=false", "--wait", "--timeout=5m")
    assert labels(target, APP_ARMOR_PROFILE_LABEL) == {None}, "no DaemonSet loads that profile any more"


def selector(daemonset: str) -> str:
    """Return what selects the pods of a DaemonSet of the release."""
    return f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/name=multiarchbuild-{daemonset}"


def pod_on_amd64(target: Target, namespace: str, daemonset: str = "profile") -> dict[str, Any]:
    """Return a pod of a DaemonSet of the release."""
    out = target.kubectl("get", "pods", "-n", namespace, "-l", selector(daemonset), "-o", "json")
    return next(pod for pod in json.loads(out)["items"] if target.nodes[pod["spec"]["nodeName"]] == "amd64")


def say(target: Target, pod: dict[str, Any]) -> str:
    """Return the log of the container that labels."""
    meta = pod["metadata"]
    return target.kubectl("logs", "-n", meta["namespace"], meta["name"], "-c", "label")


def refused(target: Target, pod: dict[str, Any]) -> list[str]:
    """Return what calls that the seccomp profile forbids return, and their errors."""
    meta = pod["metadata"]
    command = ("exec", "-n", meta["namespace"], meta["name"], "-c", "label", "--", "python", "-c", REFUSED)
    return target.kubectl(*command).splitlines()


def builders(build: Build) -> list[dict[str, Any]]:
    """Return the pods of a build that run BuildKit."""
    return [pod for pod in build.pods() if "initContainers" in pod["spec"]]


def confinement(target: Target, pod: dict[str, Any]) -> dict[str, set[str]]:
    """Return the AppArmor profiles of a pod's processes by the name of the program, as the node's kernel says."""
    found = defaultdict(set)
    for pid in cgroups.processes(target.facts.instance):
        process = Path("/proc", str(pid))
        try:
            if pod["metadata"]["uid"] in (process / "cgroup").read_text(encoding="utf-8"):
                name = (process / "comm").read_text(encoding="utf-8").strip()
                found[name].add((process / "attr/current").read_text(encoding="utf-8").strip("\n\0"))
        except OSError:
            continue  # it has ended
    return found


def test_where_baseline_is_enforced_builds_run_on_nodes_that_have_the_profile(
    target: Target, operator: str, baseline: Tenant, elsewhere: str
) -> None:
    without_app_armor = bool(target.facts.instance) and not apparmor.is_enabled()
    if target.facts.instance and not without_app_armor:
        pytest.skip("the nodes have AppArmor")
    assert labels(target) == {None}
    build = baseline.build(source=inline(DOCKERFILE), scheduling={"strategy": "Native"})
    status = build.until(
        lambda status: {entry.get("reason") for entry in status.get("run", {}).get("platforms", ())} == {"NoBuilder"}
    )
    wanted = f"{PROFILE_LABEL}={PROFILE_VERSION} or {APP_ARMOR_PROFILE_LABEL}={PROFILE_VERSION}"
    assert f"{wanted} as the operator's policy demands" in platform(status, AMD64)["message"]

    with installed(target, operator, elsewhere, appArmor=without_app_armor):
        until_labelled(target, {PROFILE_LABEL: PROFILE_VERSION})
        status = build.succeeded()
        assert {platform(status, name)["mode"] for name in (AMD64, ARM64)} == {"Native"}
        contexts = [pod["spec"]["initContainers"][0]["securityContext"] for pod in builders(build)]
        assert [each["seccompProfile"] for each in contexts] == [
            {"type": "Localhost", "localhostProfile": PROFILE_FILE}
        ] * 2

        native = pod_on_amd64(target, elsewhere)
        if without_app_armor:
            assert "this node has no AppArmor" in say(target, native)
            assert not any("appArmorProfile" in each for each in contexts)
            assert not target.kubectl("get", "pods", "-n", elsewhere, "-l", selector("profile-apparmor"), "-o", "name")
        assert refused(target, native) == ["-1 1"] * 3, "the profile refuses them: EPERM"

        # The label of an earlier version, which another DaemonSet answers for, keeps none from labelling.
        target.kubectl("label", "node", native["spec"]["nodeName"], f"{APP_ARMOR_PROFILE_LABEL}=0")
        daemonset = f"{RELEASE}-multiarchbuild-profile"
        restarted_while_labelled(target, elsewhere, daemonset, selector("profile"), {PROFILE_LABEL: PROFILE_VERSION})

        without_app_armor_profile(target, elsewhere)
        assert labels(target) == {PROFILE_VERSION}


@pytest.mark.skipif(not apparmor.is_enabled(), reason="the kernel of this machine has no AppArmor")
def test_on_nodes_with_app_armor_builders_run_confined_by_the_profile(
    target: Target, operator: str, baseline: Tenant, elsewhere: str, gate: Gate
) -> None:
    if not target.facts.instance:
        pytest.skip("reads the profiles of processes on their node, which is this machine with the local cluster only")
    platforms = sorted(f"linux/{architecture}" for architecture in {*target.nodes.values()})
    with installed(target, operator, elsewhere, appArmor=True):
        # With the runtime's own profile nothing can be mounted.
        confined = {APP_ARMOR_LABEL: "true", APP_ARMOR_PROFILE_LABEL: PROFILE_VERSION}
        until_labelled(target, {**confined, PROFILE_LABEL: None})
        assert "this node has AppArmor, whose profile for containers forbids mounts" in say(
            target, pod_on_amd64(target, elsewhere)
        )
        labelling = pod_on_amd64(target, elsewhere, "profile-apparmor")
        assert CONFINED in confinement(target, labelling)["python"], "the other one loads, unconfined"
        assert refused(target, labelling) == ["-1 1"] * 3, "the seccomp profile refuses them: EPERM"

        dockerfile = f"{DOCKERFILE}{CAPTIVE}RUN {gate.wait()}\n"
        build = baseline.build(source=inline(dockerfile), platforms=platforms, scheduling={"strategy": "Native"})
        until("a RUN of each platform waits", lambda: _waiting(target, build) == len(platforms))
        for pod in builders(build):
            assert pod["spec"]["initContainers"][0]["securityContext"] == {
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "runAsNonRoot": True,
                "seccompProfile": {"type": "Localhost", "localhostProfile": PROFILE_FILE},
                "appArmorProfile": {"type": "Localhost", "localhostProfile": APP_ARMOR_PROFILE},
            }
            programs = confinement(target, pod)
            assert {*programs} >= {"rootlesskit", "buildkitd", "sh"}
            assert set.union(*(programs[name] for name in ("rootlesskit", "buildkitd", "sh"))) == {CONFINED}
        gate.open()
        status = build.succeeded()
        assert {platform(status, name)["mode"] for name in platforms} == {"Native"}

        for daemonset, label in (("profile", APP_ARMOR_LABEL), ("profile-apparmor", APP_ARMOR_PROFILE_LABEL)):
            name = f"{RELEASE}-multiarchbuild-{daemonset}"
            restarted_while_labelled(target, elsewhere, name, selector(daemonset), {label: confined[label]})

        without_app_armor_profile(target, elsewhere)
        assert [labels(target, key) for key in (PROFILE_LABEL, APP_ARMOR_LABEL)] == [{None}, {"true"}]
    assert is_loaded(apparmor.LOADED.read_text(encoding="utf-8")), "what runs with it stays confined"


def _waiting(target: Target, build: Build) -> int:
    """Return how many builders have a RUN that waits for the gate, which asks with wget."""
    return sum("wget" in confinement(target, pod) or "sleep" in confinement(target, pod) for pod in builders(build))
