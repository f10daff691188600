"""Builds in a namespace that enforces Pod Security `baseline`, with the profile that the chart lays down."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
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
from tests.cluster.vm.guest import LABEL as HAS_APP_ARMOR
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

PROCESSES = """
for process in /proc/[0-9]*; do
  read -r name < $process/comm && read -r profile < $process/attr/current && printf '%s\\t%s\\n' "$name" "$profile"
done 2> /dev/null
true
"""

RELEASE = "baseline"
LABELS = (PROFILE_LABEL, APP_ARMOR_LABEL, APP_ARMOR_PROFILE_LABEL)
"""Of nodes, by the DaemonSets of the chart."""
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
    """A namespace for the DaemonSet, which mounts a folder of the node and labels it."""
    if not target.facts.instance and set.union(*(labels(target, key) for key in LABELS)) != {None}:
        pytest.skip(f"nodes have labels of another release of the chart: {', '.join(LABELS)}")
    name = "baseline-profile"
    target.kubectl("create", "namespace", name)
    yield name
    target.kubectl("delete", "namespace", name)


@pytest.fixture
def confining(target: Target) -> set[str]:
    """The nodes with AppArmor: all of the local cluster where this machine's kernel has it, and those that say so."""
    nodes = json.loads(target.kubectl("get", "nodes", "-o", "json"))["items"]
    names = {node["metadata"]["name"]: node["metadata"]["labels"].get(HAS_APP_ARMOR) == "true" for node in nodes}
    every = bool(target.facts.instance) and apparmor.is_enabled()
    return {name for name, labelled in names.items() if labelled or every}


def labels(target: Target, key: str = PROFILE_LABEL, of: Collection[str] = ()) -> set[str | None]:
    """Return the values that a label has on nodes."""
    nodes = json.loads(target.kubectl("get", "nodes", *of, "-o", "json"))
    return {node["metadata"]["labels"].get(key) for node in nodes.get("items", (nodes,))}


def until_labelled(target: Target, wanted: dict[str, str | None], of: Collection[str] = ()) -> None:
    """Wait until all nodes have these labels, and none of those whose value is None."""
    names = set(of or target.nodes)

    def check(nodes: Objects) -> bool:
        found = {node["metadata"]["name"]: node["metadata"]["labels"] for node in nodes.values()}
        return names <= found.keys() and all(
            found[name].get(key) == value for name in names for key, value in wanted.items()
        )

    wait_for(target, "nodes", until=check, why=f"nodes {sorted(names)} are labelled {wanted}")


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


def pod_on_amd64(
    target: Target, namespace: str, daemonset: str = "profile", of: Collection[str] = ()
) -> dict[str, Any]:
    """Return a pod of a DaemonSet of the release on one of these nodes; `REFUSED` has the numbers of x86_64."""
    out = target.kubectl("get", "pods", "-n", namespace, "-l", selector(daemonset), "-o", "json")
    names = {name for name in of or target.nodes if target.nodes[name] == "amd64"}
    found: list[dict[str, Any]] = [pod for pod in json.loads(out)["items"] if pod["spec"]["nodeName"] in names]
    assert found, f"none of the nodes {sorted(of or target.nodes)} is for amd64 and has a pod of {daemonset}"
    return found[0]


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


def confinement(target: Target, pod: dict[str, Any], container: str) -> dict[str, set[str]]:
    """Return the AppArmor profiles of what runs in a container by the name of the program, as the kernel says."""
    meta, found = pod["metadata"], defaultdict(set)
    command = ("exec", "-n", meta["namespace"], meta["name"], "-c", container, "--", "sh", "-c", PROCESSES)
    for line in target.kubectl(*command).splitlines():
        name, _, profile = line.partition("\t")
        found[name].add(profile)
    return found


def test_where_baseline_is_enforced_builds_run_on_nodes_that_have_the_profile(
    target: Target, operator: str, baseline: Tenant, elsewhere: str, confining: set[str]
) -> None:
    if confining:
        pytest.skip("nodes have AppArmor")
    without_app_armor = bool(target.facts.instance)
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


def test_on_nodes_with_app_armor_builders_run_confined_by_the_profile(
    target: Target, operator: str, baseline: Tenant, elsewhere: str, gate: Gate, confining: set[str]
) -> None:
    if not confining:
        pytest.skip(f"no node has AppArmor: `make test-apparmor` brings one, or label yours {HAS_APP_ARMOR}=true")
    assert "amd64" in {target.nodes[name] for name in confining}, (
        f"none of {sorted(confining)} is an amd64 node, as this test needs: label every node that has AppArmor "
        f"{HAS_APP_ARMOR}=true"
    )
    others = target.nodes.keys() - confining
    platforms = sorted({f"linux/{target.nodes[name]}" for name in confining})
    with installed(target, operator, elsewhere, appArmor=True):
        # With the runtime's own profile nothing can be mounted.
        confined = {APP_ARMOR_LABEL: "true", APP_ARMOR_PROFILE_LABEL: PROFILE_VERSION}
        until_labelled(target, {**confined, PROFILE_LABEL: None}, confining)
        assert "this node has AppArmor, whose profile for containers forbids mounts" in say(
            target, pod_on_amd64(target, elsewhere, of=confining)
        )
        if others:
            until_labelled(target, {**dict.fromkeys(confined), PROFILE_LABEL: PROFILE_VERSION}, others)
        labelling = pod_on_amd64(target, elsewhere, "profile-apparmor", confining)
        assert confinement(target, labelling, "label")["python"] == {CONFINED}
        loading = confinement(target, labelling, "load")["python"]
        assert loading, "it runs"
        assert not any(map(apparmor.is_confined, loading)), "it may load"
        assert refused(target, labelling) == ["-1 1"] * 3, "the seccomp profile refuses them: EPERM"

        dockerfile = f"{DOCKERFILE}{CAPTIVE}RUN {gate.wait()}\n"
        build = baseline.build(source=inline(dockerfile), platforms=platforms, scheduling={"strategy": "Native"})
        until("a RUN of each platform waits", lambda: _waiting(target, build) == len(platforms))
        for pod in builders(build):
            assert pod["spec"]["nodeName"] in confining, "rather than on one that has the seccomp profile alone"
            assert pod["spec"]["initContainers"][0]["securityContext"] == {
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "runAsNonRoot": True,
                "seccompProfile": {"type": "Localhost", "localhostProfile": PROFILE_FILE},
                "appArmorProfile": {"type": "Localhost", "localhostProfile": APP_ARMOR_PROFILE},
            }
            programs = confinement(target, pod, "buildkitd")
            assert {*programs} >= {"rootlesskit", "buildkitd", "sh"}
            assert set.union(*(programs[name] for name in ("rootlesskit", "buildkitd", "sh"))) == {CONFINED}
        gate.open()
        status = build.succeeded()
        assert {platform(status, name)["mode"] for name in platforms} == {"Native"}

        for daemonset, label in (("profile", APP_ARMOR_LABEL), ("profile-apparmor", APP_ARMOR_PROFILE_LABEL)):
            name = f"{RELEASE}-multiarchbuild-{daemonset}"
            wanted = {label: confined[label]}
            restarted_while_labelled(target, elsewhere, name, selector(daemonset), wanted, confining)

        without_app_armor_profile(target, elsewhere)
        assert [labels(target, key, confining) for key in (PROFILE_LABEL, APP_ARMOR_LABEL)] == [{None}, {"true"}]
        staying = _pod(baseline, min(confining))
    assert confinement(target, staying, "main")["sleep"] == {CONFINED}, "what runs with it stays confined"


def _waiting(target: Target, build: Build) -> int:
    """Return how many builders have a RUN that waits for the gate, which asks with wget."""
    running = [pod for pod in builders(build) if _runs_buildkitd(pod)]
    return sum(bool({"wget", "sleep"} & confinement(target, pod, "buildkitd").keys()) for pod in running)


def _runs_buildkitd(pod: dict[str, Any]) -> bool:
    statuses = pod["status"].get("initContainerStatuses", ())
    return any(entry["name"] == "buildkitd" and "running" in entry["state"] for entry in statuses)


def _pod(tenant: Tenant, node: str) -> dict[str, Any]:
    """Return a pod that runs with the profiles on a node, which still has the AppArmor profile where this returns."""
    context = {
        "seccompProfile": {"type": "Localhost", "localhostProfile": PROFILE_FILE},
        "appArmorProfile": {"type": "Localhost", "localhostProfile": APP_ARMOR_PROFILE},
    }
    container = {"name": "main", "image": "busybox:1.36", "command": ["sleep", "3600"], "securityContext": context}
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "confined"}, "spec": spec}
    tenant.apply(manifest)
    tenant.kubectl("wait", "pod/confined", "--for=condition=Ready", "--timeout=300s")
    return manifest | {"metadata": {"name": "confined", "namespace": tenant.namespace}}
