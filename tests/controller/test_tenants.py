"""Two strangers on one operator: every field of spec against the other and the cluster, and what is told of them."""

import base64
import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from multiarchbuild.api.results import Built, Published, PublishedPlatform, Pushed, Resolved, Source, dump
from multiarchbuild.controller.kube import BUILDS, CLAIMS, CONFIG_MAPS, EVENTS, PODS, Kube
from multiarchbuild.plan.children import Role, pod_from
from tests.unit.plan.test_tenants import FIELDS, Governed, spec_with

from .conftest import REAL, Kubectl, Operator, OperatorFactory, eventually, new_namespace, tool

pytestmark = pytest.mark.api

Manifest = dict[str, Any]
DIGEST = "sha256:" + "a" * 64
POLICY = {
    "tenants": [
        {
            "namespaces": ["*"],
            "priorityClasses": [],
            "serviceAccounts": ["default"],
            "secrets": ["own-*"],
            "nodeLabels": ["pool"],
            "tolerations": ["pool=a"],
            "placement": {"nodeSelector": {"pool": "builds"}, "tolerations": [{"key": "pool", "value": "builds"}]},
            "signing": {"nodeSelector": {"pool": "signing"}},
        }
    ],
    "outputs": [
        {"namespaces": ["*"], "registries": ["registry.example.com/{namespace}/*", "registry.example.com/shared/*"]}
    ],
    "emulation": {"allowed": False},
    "cacheVolumes": {"maxSize": "8Gi"},
    "maxResources": {"cpu": 8, "memory": "8Gi"},
    "maxTimeout": "1h",
}
SECRETS = ("own-registry", "own-git", "own-npm", "own-ssh", "own-key")


@pytest.fixture
def strangers(kubectl: Kubectl) -> Iterator[tuple[str, str]]:
    """Two namespaces, each with Secrets that hold canaries."""
    with new_namespace(kubectl, "stranger") as one, new_namespace(kubectl, "stranger") as other:
        yield one, other


@pytest.fixture
def canaries(kubectl: Kubectl, strangers: tuple[str, str]) -> list[str]:
    """Values of Secrets that nobody but the step that mounts them may ever see."""
    found = []
    for namespace in strangers:
        for name in SECRETS:
            value = f"canary-{secrets.token_hex(12)}"
            found += [value, base64.b64encode(value.encode()).decode().rstrip("=")]
            kubectl("create", "secret", "generic", name, f"--from-literal=key={value}", "-n", namespace)
    return found


@pytest.fixture
async def running(operator: OperatorFactory, strangers: tuple[str, str], tmp_path: Path) -> Operator:
    """The real operator, for both."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump(POLICY))
    return await operator("--policy", str(policy), "--no-flux", "--namespace", *strangers, program=REAL).leading()


def resource(namespace: str, name: str, **spec: Any) -> Manifest:
    base: Manifest = {
        "platforms": ["linux/amd64", "linux/arm64"],
        "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
        "output": {"image": f"registry.example.com/{namespace}/{name}"},
    }
    return {
        "apiVersion": "multiarch.build/v1alpha1",
        "kind": "MultiArchBuild",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**base, **spec},
    }


def create(kubectl: Kubectl, *manifests: Manifest) -> None:
    kubectl("create", "-f", "-", stdin=yaml.safe_dump_all(manifests))


def ready(manifest: Manifest) -> Manifest:
    conditions = manifest.get("status", {}).get("conditions", ())
    return next((entry for entry in conditions if entry["type"] == "Ready"), {})


async def builds(kube: Kube, namespace: str) -> dict[str, Manifest]:
    return {entry["metadata"]["name"]: entry for entry in await kube.list(BUILDS, namespace)}


async def test_every_field_is_refused_by_its_rule_before_anything_exists(
    kube: Kube, kubectl: Kubectl, strangers: tuple[str, str], running: Operator
) -> None:
    own, other = strangers
    governed = {path: field for path, field in FIELDS.items() if isinstance(field, Governed)}
    names = {path: f"attack-{number}" for number, path in enumerate(governed)}
    attacks = []
    for path, field in governed.items():
        value = f"registry.example.com/{other}/app" if path in {"output.image", "cache.repository"} else field.value
        spec = spec_with(path, value)
        if path.startswith("output.") and path != "output.image":
            spec["output"]["image"] = f"registry.example.com/{own}/app"
        attacks.append(resource(own, names[path], **spec))
    create(kubectl, *attacks)

    async def judged() -> dict[str, Manifest] | None:
        found = await builds(kube, own)
        return found if all(ready(entry) for entry in found.values()) and len(found) == len(attacks) else None

    found = await eventually("all are judged", judged)
    assert found
    escaped = []
    for path, field in governed.items():
        said = ready(found[names[path]])
        if said["reason"] != "PolicyDenied" or field.rule not in said["message"]:
            escaped.append(f"{path}: {said['reason']}: {said['message']}")
    assert escaped == []
    assert await kube.list(PODS, own) == []
    assert await kube.list(CLAIMS, own) == []
    assert [each for each in await kube.list(CONFIG_MAPS, own) if each["metadata"]["name"] != "kube-root-ca.crt"] == []
    assert running.metric('mab_reconcile_errors_total{kind="bug"}') == 0


def finish(kubectl: Kubectl, manifest: Manifest) -> None:
    """Say in the status of a pod, as the kubelet would, that its step has done its work."""
    pod = pod_from(manifest)
    result: Resolved | Built | Published
    if pod.role in {Role.RESOLVE, Role.CHECK}:
        result = Resolved(source=Source(commit="1" * 40, ref="main"))
    elif pod.role is Role.BUILD:
        result = Built(digest=DIGEST)
    else:
        images = Pushed.model_validate_json(pod.built_annotation).images
        platforms = tuple(PublishedPlatform(platform=each.platform, digest=each.digest, size=1) for each in images)
        result = Published(digest=DIGEST, tags=("latest",), platforms=platforms)
    terminated = {
        "exitCode": 0,
        "reason": "Completed",
        "message": dump(result).decode(),
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:00:01Z",
    }
    step = {"name": "step", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    status = {"phase": "Succeeded", "containerStatuses": [{**step, "state": {"terminated": terminated}}]}
    command = ("patch", "pod", pod.name, "-n", manifest["metadata"]["namespace"], "--subresource=status")
    kubectl(*command, "--type=merge", "-p", json.dumps({"status": status}))


async def brought_to_an_end(kube: Kube, kubectl: Kubectl, namespace: str, seen: dict[str, Manifest]) -> None:
    """Play the kubelet until all builds of a namespace have ended; `seen` gets every object that there was."""

    async def ended() -> bool:
        for kind in (PODS, CONFIG_MAPS):
            seen.update(
                {
                    f"{namespace}/{kind.kind}/{each['metadata']['name']}": each
                    for each in await kube.list(kind, namespace)
                }
            )
        for manifest in await kube.list(PODS, namespace):
            pod = pod_from(manifest)
            waits = pod.role is Role.PUBLISH and not pod.built_annotation
            waits |= pod.role is Role.BUILD and not pod.source_annotation
            if pod.ended is None and not pod.deleting and not waits:
                finish(kubectl, manifest)
        return all(
            entry.get("status", {}).get("run", {}).get("result") for entry in (await builds(kube, namespace)).values()
        )

    await eventually("all builds end", ended)


def everything(namespace: str, name: str) -> Manifest:
    """Return a build that uses all that the policy lets it use, with a Secret in each place that takes one."""
    git = {"url": "https://git.example.com/app", "secretRef": {"name": "own-git"}, "interval": "10m"}
    secret = {"id": "npm", "secretKeyRef": {"name": "own-npm", "key": "key"}}
    return resource(
        namespace,
        name,
        source={"git": git},
        build={"secrets": [secret], "ssh": {"secretRef": {"name": "own-ssh"}}},
        output={
            "image": "registry.example.com/shared/app",
            "secretRefs": [{"name": "own-registry"}],
            "signing": {"secretRef": {"name": "own-key"}},
        },
        scheduling={"nodeSelector": {"pool": "builds"}, "tolerations": [{"key": "pool", "value": "a"}]},
    )


async def test_nothing_of_a_secret_and_nothing_of_a_stranger_is_told(
    kube: Kube, kubectl: Kubectl, strangers: tuple[str, str], canaries: list[str], running: Operator
) -> None:
    seen: dict[str, Manifest] = {}
    for number, namespace in enumerate(strangers):
        create(kubectl, everything(namespace, f"app-{number}"))
        await brought_to_an_end(kube, kubectl, namespace, seen)
    told: dict[str, str] = {}
    for namespace in strangers:
        for kind in (BUILDS, PODS, CONFIG_MAPS, EVENTS):
            for each in await kube.list(kind, namespace):
                seen[f"{namespace}/{kind.kind}/{each['metadata']['name']}"] = each
    for name, manifest in seen.items():
        told[name] = json.dumps(manifest)
    assert {pod_from(each).role for name, each in seen.items() if "/Pod/" in name} == {
        Role.RESOLVE,
        Role.BUILD,
        Role.PUBLISH,
    }
    everywhere = {**told, "log": running.log.read_text(), "metrics": running.get("/metrics")[1]}
    assert [(where, each) for where, text in everywhere.items() for each in canaries if each in text] == []
    # Neither namespace is named in what the other one can read, and there was something to tell.
    one, other = strangers
    assert [where for where, text in told.items() if where.startswith(one) and other in text] == []
    assert [where for where, text in told.items() if where.startswith(other) and one in text] == []

    async def told_of_the_conflict() -> list[str]:
        return [
            namespace
            for namespace in strangers
            for build in (await builds(kube, namespace)).values()
            for entry in build["status"]["conditions"]
            if entry["type"] == "TagConflict" and "also moved by a build of another namespace" in entry["message"]
        ]

    # The newer one; which of two is that, no one knows of two that were created in the same second.
    found = await eventually("a build is told that its tag has two movers", told_of_the_conflict)
    assert found is not None
    assert len(found) == 1
    for manifest in (each for name, each in seen.items() if "/Pod/" in name):
        signs = any(volume["name"] == "signing" for volume in manifest["spec"]["volumes"])
        assert manifest["spec"]["nodeSelector"]["pool"] == ("signing" if signs else "builds")
        assert manifest["spec"]["automountServiceAccountToken"] is False


def test_a_stranger_reads_and_writes_nothing_of_the_other(kubectl: Kubectl, strangers: tuple[str, str]) -> None:
    own, other = strangers
    rules = [
        {"apiGroups": ["multiarch.build"], "resources": ["multiarchbuilds"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list", "watch"]},
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "b", "namespace": own}}
    create(kubectl, {**role, "rules": rules}, resource(own, "app"), resource(other, "app"))
    kubectl("create", "rolebinding", "b", "--role=b", "--user=tenant", "-n", own)

    def may(*command: str) -> bool:
        done = subprocess.run(
            [tool("kubectl"), f"--kubeconfig={kubectl.kubeconfig}", "auth", "can-i", "--as=tenant", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() == "yes"

    assert may("create", "multiarchbuilds", "-n", own)
    for verb, kind, namespace in (
        ("get", "multiarchbuilds", other),
        ("create", "multiarchbuilds", other),
        ("patch", "multiarchbuilds/status", own),
        ("get", "secrets", own),
        ("create", "pods", own),
        ("get", "pods/log", other),
        ("list", "nodes", own),
    ):
        subresource = ("--subresource=" + kind.partition("/")[2],) if "/" in kind else ()
        assert not may(verb, kind.partition("/")[0], *subresource, "-n", namespace), f"{verb} {kind} in {namespace}"
