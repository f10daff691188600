"""The QEMU DaemonSet on real nodes: registers, verifies, labels, and takes back.

s390x, because nothing else on the machine uses it: binfmt_misc belongs to the whole kernel.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from hack.image import build_image
from hack.install import CHART
from hack.target import CommandError, Target
from multiarchbuild.api.nodes import verified_by
from multiarchbuild.qemu.architectures import ARCHITECTURES
from multiarchbuild.qemu.probe import EXPECTED
from tests.support.chart import left_of
from tests.support.rollout import pods_of, restarted_while_labelled
from tests.support.tenant import Tenant, inline, platform
from tests.support.watch import Objects, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("alone")]

ARCH = "s390x"
LABEL = f"multiarch.build/qemu-{ARCH}"
PROGRAM = base64.b64encode(ARCHITECTURES[ARCH].program()).decode()
ZERO = json.dumps(["/program", *["x"] * (256 - 40 - 1)])
"""The program ends with 40 and the number of its arguments: with so many that is 0."""


@dataclass(frozen=True)
class DaemonSet:
    """The chart with nothing but the DaemonSet at work, in a namespace of its own."""

    target: Target
    namespace: str
    release: str

    def pods(self) -> list[dict[str, Any]]:
        """Return its pods, without those that end."""
        return pods_of(self.target, self.namespace, self.selector)

    @property
    def selector(self) -> str:
        """What finds its pods."""
        return f"app.kubernetes.io/name=multiarchbuild-qemu,app.kubernetes.io/instance={self.release}"

    def exec(self, pod: dict[str, Any], container: str, *command: str) -> str:
        """Run a command in a container of a pod."""
        name = pod["metadata"]["name"]
        return self.target.kubectl("exec", "-n", self.namespace, name, "-c", container, "--", *command)

    def call(self, pod: dict[str, Any], what: str) -> str:
        """Return what a method of `Api` returns in the container that labels, with the rights of the pod."""
        names = f"LABEL, BY, UID = {LABEL!r}, {verified_by(LABEL)!r}, {pod['metadata']['uid']!r}"
        code = f"from multiarchbuild.nodes.kubernetes import Api; {names}; print(Api().{what})"
        return self.exec(pod, "label", "python", "-c", code).strip()

    def until_labelled(self, *, yes: bool) -> None:
        """Wait until all nodes have the label, or none has it."""
        names = self.target.nodes.keys()

        def check(nodes: Objects) -> bool:
            found = {node["metadata"]["labels"].get(LABEL) for node in nodes.values()}
            return {node["metadata"]["name"] for node in nodes.values()} == names and found == (
                {"true"} if yes else {None}
            )

        wait_for(self.target, "nodes", until=check, why=f"nodes have {LABEL}: {yes}")

    def run_program(self, name: str, node: str) -> int:
        """Return the exit code of a foreign program in an ordinary pod; without a handler it is the shell's."""
        script = f"echo {PROGRAM} | base64 -d > /tmp/program; chmod +x /tmp/program; /tmp/program one two"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "containers": [{"name": "program", "image": "busybox:1.36", "command": ["sh", "-c", script]}],
            },
        }
        self.target.kubectl("apply", "-f", "-", stdin=json.dumps(pod))

        def ended(pods: Objects) -> dict[str, Any] | None:
            for entry in pods.values():
                for container in entry.get("status", {}).get("containerStatuses", ()):
                    if found := container["state"].get("terminated"):
                        return dict(found)
            return None

        selector = ("-n", self.namespace, "--field-selector", f"metadata.name={name}")
        return int(wait_for(self.target, "pods", *selector, until=ended)["exitCode"])


@pytest.fixture
def daemonset(target: Target, operator: str, namespace: str) -> Iterator[DaemonSet]:
    """The DaemonSet, ready on all nodes."""
    if not target.facts.instance and target.kubectl("get", "nodes", f"--selector={LABEL}", "--output=name"):
        pytest.skip(f"nodes are labelled {LABEL} by another release of the chart")
    repository, tag = build_image(target, ("linux/amd64",), "qemu").rsplit(":", 1)
    own_repository, own_tag = operator.rsplit(":", 1)
    release = f"qemu-{namespace}"
    values = {
        "image": {"repository": own_repository, "tag": own_tag},
        "replicas": 0,
        "namespaces": [namespace],
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "qemu": {
            "enabled": True,
            "architectures": [ARCH],
            "image": {"repository": repository, "tag": tag},
            "verifySeconds": 5,
        },
    }
    install = ("helm", "install", release, str(CHART), "--namespace", namespace, "--values", "-")
    target.run(*install, "--wait", "--timeout=5m", stdin=json.dumps(values))
    try:
        yield DaemonSet(target, namespace, release)
    finally:
        command = ("helm", "uninstall", release, "--namespace", namespace, "--wait", "--ignore-not-found")
        target.run(*command, "--timeout=5m")


def test_qemu_is_registered_verified_and_taken_back(daemonset: DaemonSet, tenant: Tenant) -> None:
    target = daemonset.target
    daemonset.until_labelled(yes=True)
    pods = daemonset.pods()
    nodes = [pod["spec"]["nodeName"] for pod in pods]
    assert sorted(nodes) == sorted(target.nodes)
    assert [daemonset.run_program(f"run-{node}", node) for node in nodes] == [EXPECTED] * len(nodes)

    # What it is for: a builder finds the node by its label, and a RUN of that architecture runs there.
    dockerfile = f"""
        FROM --platform=$BUILDPLATFORM busybox:1.36 AS program
        RUN echo {PROGRAM} | base64 -d > /program && chmod +x /program
        FROM scratch
        COPY --from=program /program /program
        RUN {ZERO}
    """
    status = tenant.build(
        platforms=[f"linux/{ARCH}"], source=inline(dockerfile), scheduling={"strategy": "Emulated"}
    ).succeeded()
    entry = platform(status, f"linux/{ARCH}")
    assert entry["mode"] == "Emulated"
    assert entry["node"] in nodes

    # A pod may label its own node and say there that it was this pod, and nothing else.
    first, *others = pods
    here = nodes[0]
    for call, message in (
        *((f"label_node({other['spec']['nodeName']!r}, {{LABEL: 'true'}})", "its own node only") for other in others),
        (f"label_node({here!r}, {{'node-role.kubernetes.io/control-plane': 'true'}})", "and no others"),
        (f"label_node({here!r}, {{'multiarch.build/aarch32': 'true'}})", "and no others"),
        (f"label_node({here!r}, {{}}, {{BY: 'another'}})", "to its uid"),
        (f"label_node({here!r}, {{}}, {{'multiarch.build/aarch32-verified-by': UID}})", "to its uid"),
        (f"label_node_where({here!r}, {{BY: UID}}, {{}}, {{'example.com/note': 'x'}})", "to its uid"),
    ):
        with pytest.raises(CommandError, match=message):
            daemonset.call(first, call)
    # What the API server compares: it is the truth of what tests without a cluster assume.
    assert daemonset.call(first, f"label_node_where({here!r}, {{BY: UID}}, {{}}, {{BY: UID}})") == "True"
    for expected in ("{BY: None}", "{BY: 'another'}", "{'example.com/missing': 'x'}"):
        removes = f"label_node_where({here!r}, {expected}, {{LABEL: None}}, {{BY: None}})"
        assert daemonset.call(first, removes) == "False", expected
    missing = f"label_node_where({here!r}, {{'example.com/missing': None}}, {{LABEL + '-x': None}}, {{}})"
    assert daemonset.call(first, missing) == "True", "what is missing equals null, and is removed as well"
    with pytest.raises(CommandError):
        daemonset.exec(first, "register", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")

    # The label says what is true now, not what was true once.
    own = "|".join(pod["metadata"]["uid"] for pod in pods)
    switch = f"for f in $(ls -d /tmp/binfmt-*/multiarchbuild-qemu-{ARCH}-* | grep -E '({own})$'); do echo %d > $f; done"
    daemonset.exec(first, "register", "sh", "-c", switch % 0)
    daemonset.until_labelled(yes=False)
    daemonset.exec(first, "register", "sh", "-c", switch % 1)
    daemonset.until_labelled(yes=True)

    # A pod that is replaced takes its own handler back, and its successor has one before that.
    replaced = f"{daemonset.release}-multiarchbuild-qemu"
    restarted_while_labelled(target, daemonset.namespace, replaced, daemonset.selector, {LABEL: "true"})
    handlers = daemonset.exec(daemonset.pods()[0], "register", "sh", "-c", "ls /tmp/binfmt-*").split()
    assert not [name for name in handlers if any(name.endswith(pod["metadata"]["uid"]) for pod in pods)]

    target.run("helm", "uninstall", daemonset.release, "--namespace", daemonset.namespace, "--wait", "--timeout=5m")
    daemonset.until_labelled(yes=False)
    assert daemonset.run_program("run-after", nodes[0]) != EXPECTED
    assert left_of(target, daemonset.release) == set()


def test_turned_off_by_an_upgrade_it_takes_its_labels_back_too(daemonset: DaemonSet) -> None:
    daemonset.until_labelled(yes=True)
    command = ("helm", "upgrade", daemonset.release, str(CHART), "--namespace", daemonset.namespace)
    daemonset.target.run(*command, "--reuse-values", "--set", "qemu.enabled=false", "--wait", "--timeout=5m")
    daemonset.until_labelled(yes=False)
    assert daemonset.pods() == []
