"""What everything else stands on: two architectures, builds, names, registries, admission."""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster import cli
from tests.cluster.errors import ClusterError
from tests.cluster.fixture import Cluster
from tests.cluster.processes import run
from tests.support.pace import slowness

pytestmark = pytest.mark.cluster

ARCHITECTURES = ("amd64", "arm64")
MACHINE_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}
BUILDER = "moby/buildkit:v0.32.2-rootless"


@dataclass(frozen=True)
class Namespace:
    """A namespace of one test."""

    cluster: Cluster
    name: str

    def apply(self, *objects: dict[str, Any]) -> None:
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "-f", "-", stdin=listed)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 330.0) -> str:
        return self.cluster.kubectl("--namespace", self.name, *arguments, stdin=stdin, timeout=timeout)

    def finished(self, pod: str) -> str:
        """Waits until a pod has ended well and returns its log."""
        try:
            self.kubectl("wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=300s")
        except ClusterError as error:
            log = self.kubectl("logs", pod, "--all-containers", "--ignore-errors")
            state = self.kubectl("get", "pod", pod, "-o", "jsonpath={.status}")
            raise AssertionError(f"{error}\n{state}\n{log}") from error
        return self.kubectl("logs", pod)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    name = f"cluster-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield Namespace(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def pod(name: str, arch: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/arch": arch},
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            **spec,
        },
    }


def test_a_ready_node_of_each_architecture(cluster: Cluster) -> None:
    reported = {
        node["status"]["nodeInfo"]["architecture"]: node["metadata"]["labels"]["kubernetes.io/arch"]
        for node in cluster.kubectl.nodes().values()
    }
    assert {arch: reported.get(arch) for arch in ARCHITECTURES} == {arch: arch for arch in ARCHITECTURES}


def test_second_call_takes_at_most_three_seconds(cluster: Cluster) -> None:
    before = {name: node["metadata"]["uid"] for name, node in cluster.kubectl.nodes().items()}
    assert cluster.local
    started = time.monotonic()
    assert cli.main(["up"]) == 0
    took = time.monotonic() - started
    assert took <= 3 * slowness()
    assert {name: node["metadata"]["uid"] for name, node in cluster.kubectl.nodes().items()} == before
    assert cli.main(["status"]) == 0


def test_rootless_buildkit_builds_and_pushes_on_each_node(namespace: Namespace) -> None:
    cluster = namespace.cluster
    repository = f"{cluster.facts.registry}/{namespace.name}"
    files = {
        "buildkitd.toml": cluster.facts.buildkitd_toml,
        "Dockerfile": "FROM node:20-alpine\nRUN uname -m > /machine && node -p process.arch >> /machine\n",
    }
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "context"}, "data": files})
    namespace.apply(*(build_pod(arch, f"{repository}:{arch}") for arch in ARCHITECTURES))
    for arch in ARCHITECTURES:
        namespace.finished(arch)
    crane = [str(cluster.program("crane")), *(["--insecure"] if cluster.facts.registry_insecure else [])]
    for arch in ARCHITECTURES:
        config = json.loads(run([*crane, "config", f"{repository}:{arch}"]))
        assert config["architecture"] == arch
        machine = subprocess.run(
            f"{' '.join(crane)} export {repository}:{arch} - | tar --extract --to-stdout machine",
            shell=True,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert machine == [MACHINE_NAMES[arch], {"amd64": "x64", "arm64": "arm64"}[arch]]


def build_pod(arch: str, image: str) -> dict[str, Any]:
    socket = "/run/buildkit/buildkitd.sock"
    mounts = [{"name": "context", "mountPath": "/context"}, {"name": "socket", "mountPath": "/run/buildkit"}]
    build = (
        f"until [ -S {socket} ]; do sleep 0.1; done; exec buildctl --addr unix://{socket} build "
        f"--progress=plain --frontend dockerfile.v0 --local context=/context --local dockerfile=/context "
        f"--opt platform=linux/{arch} --output type=image,name={image},push=true"
    )
    return pod(
        arch,
        arch,
        securityContext={
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "Unconfined"},
            "appArmorProfile": {"type": "Unconfined"},
        },
        initContainers=[
            {
                "name": "buildkitd",
                "image": BUILDER,
                "restartPolicy": "Always",
                "args": [
                    "--config=/context/buildkitd.toml",
                    f"--addr=unix://{socket}",
                    "--oci-worker-no-process-sandbox",
                ],
                "volumeMounts": [*mounts, {"name": "data", "mountPath": "/home/user/.local/share/buildkit"}],
            }
        ],
        containers=[{"name": "build", "image": BUILDER, "command": ["sh", "-c", build], "volumeMounts": mounts}],
        volumes=[
            {"name": "context", "configMap": {"name": "context"}},
            {"name": "socket", "emptyDir": {}},
            {"name": "data", "emptyDir": {}},
        ],
    )


def test_service_is_reached_by_name_from_both_nodes(namespace: Namespace) -> None:
    serve = "require('http').createServer((_, r) => r.end('hello')).listen(8080)"
    for arch in ARCHITECTURES:
        container = {"name": "server", "image": "node:20-alpine", "command": ["node", "-e", serve]}
        namespace.apply(
            pod(f"server-{arch}", arch, containers=[{**container, "readinessProbe": {"tcpSocket": {"port": 8080}}}]),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": f"server-{arch}"},
                "spec": {"selector": {"app": f"server-{arch}"}, "ports": [{"port": 80, "targetPort": 8080}]},
            },
        )
    namespace.kubectl("wait", "--for=condition=Ready", "--timeout=300s", *(f"pod/server-{a}" for a in ARCHITECTURES))
    urls = [
        f"http://server-{arch}{suffix}/"
        for arch in ARCHITECTURES
        for suffix in ("", f".{namespace.name}.svc.cluster.local")
    ]
    ask = f"Promise.all({json.dumps(urls)}.map(async u => (await fetch(u)).text())).then(t => console.log(t.join()))"
    # kube-proxy may hear of a Service after the pod that asks for it has started.
    command = f"for i in $(seq 100); do node -e '{ask}' && exit; sleep 0.2; done; exit 1"
    for arch in ARCHITECTURES:
        container = {"name": "client", "image": "node:20-alpine", "command": ["sh", "-c", command]}
        namespace.apply(pod(f"client-{arch}", arch, containers=[container]))
    for arch in ARCHITECTURES:
        assert namespace.finished(f"client-{arch}").splitlines()[-1] == ",".join(["hello"] * len(urls))


def test_secure_registry_wants_its_ca_and_its_user(namespace: Namespace) -> None:
    cluster = namespace.cluster
    secure = cluster.facts.secure_registry
    if secure is None:
        pytest.skip("the cluster has no registry with a password")
    crane = str(cluster.program("crane"))
    source, image = f"{cluster.facts.registry}/library/busybox:1.36", f"{secure.host}/{namespace.name}/busybox:1.36"
    with pytest.raises(ClusterError, match="certificate signed by unknown authority"):
        run([crane, "catalog", secure.host])
    trusting = ["env", f"SSL_CERT_FILE={secure.ca}", f"DOCKER_CONFIG=/tmp/{namespace.name}"]
    with pytest.raises(ClusterError, match="UNAUTHORIZED"):
        run([*trusting, crane, "catalog", secure.host])
    run([*trusting, crane, "auth", "login", secure.host, "--username", secure.user, "--password", secure.password])
    try:
        run([*trusting, crane, "copy", "--insecure", source, image])
    finally:
        run(["rm", "-r", f"/tmp/{namespace.name}"])

    container = {"name": "main", "image": image, "command": ["true"]}
    namespace.apply(pod("without", "amd64", containers=[container]))
    namespace.kubectl(
        *("create", "secret", "docker-registry", "pull", f"--docker-server={secure.host}"),
        *(f"--docker-username={secure.user}", f"--docker-password={secure.password}"),
    )
    namespace.apply(pod("with", "amd64", containers=[container], imagePullSecrets=[{"name": "pull"}]))
    namespace.finished("with")
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    cluster.kubectl.wait(
        "pull without password refused",
        lambda: namespace.kubectl("get", "pod", "without", "-o", waiting) in {"ErrImagePull", "ImagePullBackOff"},
        timeout=240,
    )


def test_pod_security_admission_is_on(namespace: Namespace) -> None:
    level = "pod-security.kubernetes.io/enforce=restricted"
    namespace.cluster.kubectl("label", "namespace", namespace.name, level)
    container = {"name": "main", "image": "busybox:1.36", "securityContext": {"privileged": True}}
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        namespace.apply(pod("privileged", "amd64", containers=[container]))


def test_node_restriction_is_on(cluster: Cluster) -> None:
    kubeconfig = cluster.local.pki / "n-amd64.kubeconfig"
    kubelet = [str(cluster.program("kubectl")), f"--kubeconfig={kubeconfig}"]
    with pytest.raises(ClusterError, match="is not allowed to modify labels"):
        run([*kubelet, "label", "node", "n-amd64", "node-restriction.kubernetes.io/zone=a"])
    with pytest.raises(ClusterError, match="Forbidden"):
        run([*kubelet, "get", "secrets", "--all-namespaces"])
