"""What strangers may ask of the cluster: the safe default, what an entry of the policy changes, and every field."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import Spec
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.rules import WHO, refusal
from tests.unit.plan.world import GIT, POLLED, World, build, node

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def policy(**entry: Any) -> Policy:
    """Return a policy with one entry, for the namespace of the build."""
    return Policy.model_validate({"tenants": [{"namespaces": ["team-*"], **entry}]})


def scheduled(**scheduling: Any) -> dict[str, Any]:
    return {"scheduling": scheduling}


def tolerating(**toleration: Any) -> dict[str, Any]:
    return scheduled(tolerations=[toleration])


def near(key: str, operator: str = "Exists", *, preferred: bool = False) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": key, "operator": operator}]}
    if preferred:
        rules = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}]}
        return scheduled(affinity={"nodeAffinity": rules})
    return scheduled(
        affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    )


DEFAULT = "(policy: default of tenants[]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (scheduled(priorityClassName="low"), ""),
        (
            scheduled(priorityClassName="system-node-critical"),
            (
                "scheduling.priorityClassName is system-node-critical, but the policy has to name classes of the "
                f"cluster itself {DEFAULT}.prio"
            ),
        ),
        (scheduled(serviceAccountName="any"), ""),
        (tolerating(key="dedicated", operator="Exists"), ""),
        (tolerating(key="node.kubernetes.io/unreachable", operator="Exists", effect="NoExecute"), ""),
        (
            tolerating(operator="Exists"),
            f"scheduling.tolerations has one without a key, which tolerates every taint: name the key {DEFAULT}.tol",
        ),
        (tolerating(operator="Exists", effect="NoSchedule"), "tolerates every taint"),
        (
            tolerating(key=CONTROL_PLANE, operator="Exists"),
            f"scheduling.tolerations has {CONTROL_PLANE}, but the policy must allow it by name {DEFAULT}.tolerations)",
        ),
        (tolerating(key="node-role.kubernetes.io/master", value=""), "node-role.kubernetes.io/master="),
        (tolerating(key="node.kubernetes.io/unschedulable", operator="Exists"), "has node.kubernetes.io/unschedulable"),
        (
            tolerating(key="node.cloudprovider.kubernetes.io/uninitialized", value="true"),
            "the policy must allow it by name",
        ),
        (
            scheduled(overrides=[{"platform": "linux/arm64", "tolerations": [{"key": CONTROL_PLANE}]}]),
            "scheduling.overrides[linux/arm64].tolerations has node-role",
        ),
        (scheduled(nodeSelector={"pool": "builds"}), ""),
        (
            scheduled(nodeSelector={CONTROL_PLANE: ""}),
            f"scheduling.nodeSelector has {CONTROL_PLANE}, but the policy must allow it by name {DEFAULT}.nodeLabels)",
        ),
        (
            scheduled(overrides=[{"platform": "linux/arm64", "nodeSelector": {CONTROL_PLANE: ""}}]),
            "scheduling.overrides[linux/arm64].nodeSelector has node-role",
        ),
        (near(CONTROL_PLANE), "scheduling.affinity has node-role"),
        (near(CONTROL_PLANE, preferred=True), "scheduling.affinity has node-role"),
        (near(CONTROL_PLANE, "DoesNotExist"), ""),
        (scheduled(resources={"limits": {"cpu": "64", "memory": "64Gi", "ephemeral-storage": "1Ti"}}), ""),
        (
            scheduled(resources={"limits": {"nvidia.com/gpu": 8}}),
            (
                "scheduling.resources.limits has nvidia.com/gpu, but only cpu, memory, ephemeral-storage and what the "
                "policy names are allowed (policy: maxResources)"
            ),
        ),
        (
            scheduled(resources={"requests": {"hugepages-2Mi": "1Gi"}}),
            "scheduling.resources.requests has hugepages-2Mi",
        ),
        (
            scheduled(overrides=[{"platform": "linux/arm64", "resources": {"limits": {"amd.com/gpu": 1}}}]),
            "scheduling.overrides[linux/arm64].resources.limits has amd.com/gpu",
        ),
    ],
)
def test_without_an_entry_a_safe_default_holds(spec: dict[str, Any], expected: str) -> None:
    _check(refusal(build(**spec), Policy()), expected)


def _check(message: str, expected: str) -> None:
    assert expected in message
    assert bool(message) == bool(expected), message
    assert not message or message.endswith(f"{WHO}.")


IMAGE = "registry.example.com/team-a/app"
SIGNED_BY_IDENTITY = {"output": {"image": IMAGE, "signing": {"keyless": True}}}
KEYLESS = {"fulcio": "https://fulcio.example.com", "timestampAuthority": "https://tsa.example.com/api/v1/timestamp"}
SIGNED_BY_KEY = {"output": {"image": IMAGE, "signing": {"secretRef": {"name": "key-1"}}}}
GPU = scheduled(resources={"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 1}})


@pytest.mark.parametrize(
    ("entry", "spec", "expected"),
    [
        ({"priorityClasses": ["system-*"]}, scheduled(priorityClassName="system-node-critical"), ""),
        ({"priorityClasses": ["*"]}, scheduled(priorityClassName="system-node-critical"), "the policy has to name"),
        ({"priorityClasses": ["builds-*"]}, scheduled(priorityClassName="builds-low"), ""),
        (
            {"priorityClasses": ["builds-*"]},
            scheduled(priorityClassName="high"),
            "is high, but builds of namespace team-a may use builds-* (policy: tenants[0].priorityClasses)",
        ),
        ({"priorityClasses": []}, scheduled(priorityClassName="high"), "may use none (policy: tenants[0].priorityCl"),
        ({"priorityClasses": []}, {}, ""),
        ({"serviceAccounts": ["default", "{namespace}-*"]}, scheduled(serviceAccountName="team-a-builder"), ""),
        (
            {"serviceAccounts": ["{namespace}-*"]},
            {},
            (
                "scheduling.serviceAccountName is default, but builds of namespace team-a may use {namespace}-* ("
                "policy: tenants[0].serviceAccounts)"
            ),
        ),
        ({"tolerations": [f"{CONTROL_PLANE}"]}, tolerating(key=CONTROL_PLANE, operator="Exists"), ""),
        ({"tolerations": ["node-role.kubernetes.io/*"]}, tolerating(key=CONTROL_PLANE, operator="Exists"), ""),
        ({"tolerations": ["node-role*"]}, tolerating(key=CONTROL_PLANE, operator="Exists"), "may use node-role*"),
        ({"tolerations": ["dedicated={namespace}"]}, tolerating(key="dedicated", value="team-a"), ""),
        (
            {"tolerations": ["dedicated={namespace}"]},
            tolerating(key="dedicated", value="team-b"),
            "has dedicated=team-b",
        ),
        (
            {"tolerations": ["dedicated={namespace}"]},
            tolerating(key="dedicated", operator="Exists"),
            "has dedicated, but",
        ),
        ({"tolerations": ["dedicated=*"]}, tolerating(key="dedicated", operator="Exists"), ""),
        ({"tolerations": ["dedicated"]}, tolerating(key="dedicated", value="x"), ""),
        ({"tolerations": ["*"]}, tolerating(operator="Exists"), "tolerates every taint"),
        ({"tolerations": []}, {}, ""),
        ({"nodeLabels": ["node-role.kubernetes.io/*"]}, scheduled(nodeSelector={CONTROL_PLANE: ""}), ""),
        ({"nodeLabels": ["pool"]}, near("pool"), ""),
        (
            {"nodeLabels": ["pool"]},
            near("zone"),
            "scheduling.affinity has zone, but builds of namespace team-a may use p",
        ),
        ({"placement": {"nodeSelector": {"pool": "builds"}}}, scheduled(nodeSelector={"pool": "builds"}), ""),
        (
            {"placement": {"nodeSelector": {"pool": "builds"}}},
            scheduled(nodeSelector={"pool": "web"}),
            "scheduling.nodeSelector[pool] is web, but builds here run on nodes where it is builds (policy: tenants",
        ),
        ({"signing": {"secrets": ["key-*"]}}, SIGNED_BY_KEY, ""),
        ({"signing": {"keyless": KEYLESS}}, SIGNED_BY_IDENTITY, ""),
        (
            {},
            SIGNED_BY_IDENTITY,
            (
                "output.signing.keyless is set, but no Fulcio certifies signatures of builds of namespace team-a "
                "(policy: tenants[0].signing.keyless)"
            ),
        ),
        (
            {"signing": {"secrets": ["{namespace}-*"]}},
            SIGNED_BY_KEY,
            "is key-1, but builds of namespace team-a may use",
        ),
        ({"signing": {"secrets": ["key-*"]}, "secrets": ["own"]}, SIGNED_BY_KEY, "(policy: tenants[0].secrets)"),
        (
            {"signing": {"secrets": ["key-*"]}},
            {"build": {"secrets": [{"id": "a", "secretKeyRef": {"name": "key-1", "key": "cosign.key"}}]}},
            (
                "build.secrets[a].secretKeyRef.name is key-1, which only output.signing may use (policy: tenants[0]."
                "signing.secrets)"
            ),
        ),
        (
            {"signing": {"secrets": ["key-*"]}},
            {"build": {"ssh": {"secretRef": {"name": "key-1"}}}},
            "which only output.si",
        ),
        ({"maxResources": {"nvidia.com/gpu": 1}}, GPU, ""),
        ({"maxResources": {"nvidia.com/gpu": 0}}, GPU, "nvidia.com/gpu is 1, but at most 0 is allowed (policy: maxR"),
        ({"maxResources": {"memory": "1Gi"}}, scheduled(resources={"limits": {"memory": "2Gi"}}), "at most 1Gi is"),
    ],
)
def test_an_entry_says_what_its_namespaces_may(entry: dict[str, Any], spec: dict[str, Any], expected: str) -> None:
    _check(refusal(build(**spec), policy(**entry)), expected)


def test_the_first_entry_that_covers_a_namespace_counts_and_none_refuses() -> None:
    rules = {"tenants": [{"namespaces": ["team-a"], "priorityClasses": ["a"]}, {"namespaces": ["*"]}]}
    spec = scheduled(priorityClassName="b")
    assert "may use a (policy: tenants[0].priorityClasses)" in refusal(build(**spec), Policy.model_validate(rules))
    others = Policy.model_validate({"tenants": [{"namespaces": ["team-b"]}]})
    assert "namespace team-a is in no entry of the policy, so no build may run there (policy: tenants)" in refusal(
        build(), others
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"placement": {"nodeSelector": {"kubernetes.io/arch": "amd64"}}}, "is chosen for each platform: remove it"),
        ({"placement": {"nodeSelector": {"kubernetes.io/os": "windows"}}}, "kubernetes.io/os is linux"),
        ({"placement": {"nodeSelector": {"a b": "c"}}}, "'a b' is not a valid key"),
        ({"signing": {"tolerations": [{"operator": "Exists", "value": "x"}]}}, "operator Exists takes no value"),
        ({"signing": {"tolerations": [{"value": "x"}]}}, "operator Equal needs a key"),
        ({"signing": {"tolerations": [{"key": "x", "tolerationSeconds": 1}]}}, "tolerationSeconds needs effect"),
        (
            {"signing": {"keyless": {**KEYLESS, "audience": "https://kubernetes.default.svc"}}},
            "is the API server, which takes such a token as a login: choose another",
        ),
        *(
            (
                {"signing": {"keyless": {**KEYLESS, "audience": audience}}},
                f"tenants[0].signing.keyless.audience is {audience}, which tokens for logins to registries have too",
            )
            for audience in ("sts.amazonaws.com", "api://AzureADTokenExchange", "https://iam.googleapis.com/projects/1")
        ),
        ({"signing": {"keyless": {**KEYLESS, "fulcio": "ftp://fulcio.example.com"}}}, "should match pattern"),
        ({"signing": {"keyless": {"fulcio": "https://fulcio.example.com"}}}, "timestampAuthority"),
        ({"tolerations": ["=x"]}, "write a taint as <key> or <key>=<value>"),
        ({"secrets": ["a[bc]"]}, "a pattern consists of"),
        (
            {"defaultResources": {"limits": {"memory": "8Gi"}}, "maxResources": {"memory": "4Gi"}},
            "no build could use it",
        ),
    ],
)
def test_a_mistake_in_an_entry_is_told(entry: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected.replace("[", r"\[")):
        policy(**entry)


def test_what_builds_of_all_tenants_have_by_default_is_within_what_each_may_have() -> None:
    document = {
        "defaultResources": {"requests": {"memory": "4Gi"}},
        "tenants": [{"namespaces": ["team-a"], "maxResources": {"memory": "2Gi"}}],
    }
    with pytest.raises(
        ValidationError, match=r"\[0\].defaultResources.*requests.memory is more than maxResources.memory"
    ):
        Policy.model_validate(document)


def test_an_entry_that_could_never_count_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="covers all namespaces, and the first entry that fits counts"):
        Policy.model_validate({"tenants": [{"namespaces": ["*"]}, {"namespaces": ["team-a"]}]})


def test_a_stricter_policy_lets_a_run_that_goes_on_create_no_pod() -> None:
    world = World(policy=Policy())
    world.edit(source=GIT, scheduling={"priorityClassName": "high"})
    world.settle()
    before = set(world.pods)
    world.policy = policy(priorityClasses=["low"])
    world.succeed_all(Role.RESOLVE)
    world.succeed_all(Role.BUILD)
    world.settle()
    assert set(world.pods) == before, "no publish pod was created"
    run = world.status.run
    assert run is not None
    assert run.result is None
    assert run.publish is not None
    assert run.publish.reason is Reason.POD_REJECTED
    assert "scheduling.priorityClassName is high, but" in (run.publish.message or "")
    assert WHO in (run.publish.message or "")
    world.policy = Policy()
    world.advance(60)
    world.settle()
    assert {pod_from(pod).role for pod in world.pods.values()} >= {Role.PUBLISH}


def test_a_look_at_a_polled_source_obeys_the_policy_too() -> None:
    world = World()
    world.edit(source=POLLED, scheduling={"priorityClassName": "high"})
    for role in (Role.RESOLVE, Role.BUILD, Role.PUBLISH):
        world.settle()
        world.succeed_all(role)
    world.settle()
    world.policy = policy(priorityClasses=[])
    world.advance(600)
    world.settle()
    assert not [pod for pod in world.pods.values() if pod_from(pod).role is Role.CHECK]
    assert world.status.source
    assert "scheduling.priorityClassName is high" in (world.status.source.message or "")
    assert world.status.image, "the image stays"


def test_builders_wait_for_the_nodes_that_the_policy_keeps_them_on() -> None:
    world = World(policy=policy(placement={"nodeSelector": {"pool": "builds"}, "tolerations": [{"key": "builds"}]}))
    world.settle()
    pod = world.pod(platform="linux/arm64")
    assert pod["spec"]["nodeSelector"]["pool"] == "builds"
    assert world.status.run
    message = world.status.run.platforms[0].message or ""
    assert "and with pool=builds as the operator's policy demands" in message
    taint = [("builds", "", "NoSchedule")]
    world.nodes = tuple(node(name, labels={"pool": "builds"}, taints=taint) for name in ("amd64", "arm64"))
    world.settle()
    assert {entry.reason for entry in world.status.run.platforms} == {Reason.PENDING}


# Every field of spec


@dataclass(frozen=True)
class Governed:
    """A field that the policy speaks of: a value, and a policy under which it is refused."""

    value: Any
    policy: dict[str, Any]
    rule: str
    """How the refusal names the rule."""


@dataclass(frozen=True)
class Safe:
    """A field that can do no harm to others, whatever it says."""

    why: str


def _tenant(**entry: Any) -> dict[str, Any]:
    return {"tenants": [{"namespaces": ["*"], **entry}]}


_SECRET = {"name": "stolen"}
_NO_SECRET = _tenant(secrets=["own-*"])
_NO_LABEL = _tenant(nodeLabels=["pool"])
_NO_TAINT = _tenant(tolerations=["pool"])
_OWN_POD = Safe("read by the step, which runs with the rights of the tenant's own pod")
_OWN_IMAGE = Safe("shapes the tenant's own image, built in the tenant's own pod")
_OWN_RUNS = Safe("decides about the tenant's own runs; how many go on is concurrency, how long they take maxTimeout")
_OWN_NAMESPACE = Safe("names an object of the build's own namespace that the tenant may read anyway")
_BOUNDED = Safe("raised to polling.minInterval")
_WITH_KEY = Safe("part of a toleration or requirement whose key is governed")
_ARM = "linux/arm64"


def _affinity_terms(part: str) -> dict[str, Any]:
    return {
        f"{part}.key": Governed("zone", _NO_LABEL, "nodeLabels"),
        f"{part}.operator": _WITH_KEY,
        f"{part}.values": _WITH_KEY,
    }


def _affinity(part: str) -> dict[str, Any]:
    node = f"{part}.nodeAffinity"
    preferred = f"{node}.preferredDuringSchedulingIgnoredDuringExecution"
    return {
        **_affinity_terms(f"{node}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchExpressions"),
        **_affinity_terms(f"{preferred}.preference.matchExpressions"),
        f"{preferred}.weight": _WITH_KEY,
    }


def _tolerations(part: str) -> dict[str, Any]:
    return {
        f"{part}.key": Governed("gpu", _NO_TAINT, "tolerations"),
        f"{part}.operator": _WITH_KEY,
        f"{part}.value": Governed("b", _tenant(tolerations=["pool=a"]), "tolerations"),
        f"{part}.effect": _WITH_KEY,
        f"{part}.tolerationSeconds": _WITH_KEY,
    }


def _identity(part: str) -> dict[str, Any]:
    unknown = {"provider": "AWS", "role": "arn:aws:iam::123456789012:role/admin"}
    other = _tenant(identities=["aws/arn:aws:iam::123456789012:role/builds-{namespace}"])
    of_identity = Safe("part of an identity whose name, provider and role together, is governed")
    return {
        f"{part}.provider": of_identity,
        f"{part}.role": Governed(unknown["role"], other, "identities"),
        f"{part}.tenantId": of_identity,
        f"{part}.workloadIdentityProvider": of_identity,
        f"{part}.registries": Governed(["evil.example.com"], _tenant(identities=["*"]), "identities.aws.registries"),
    }


FIELDS: dict[str, Governed | Safe] = {
    "platforms": Safe("how many builders there are is bounded by the schema; which nodes serve them is governed"),
    "source.git.url": _OWN_POD,
    "source.git.ref": _OWN_POD,
    "source.git.subdirectory": _OWN_POD,
    "source.git.keepGitDir": _OWN_POD,
    "source.git.secretRef.name": Governed("stolen", _NO_SECRET, "secrets"),
    "source.git.interval": _BOUNDED,
    "source.http.url": _OWN_POD,
    "source.http.checksum": _OWN_POD,
    "source.http.subdirectory": _OWN_POD,
    "source.http.secretRef.name": Governed("stolen", _NO_SECRET, "secrets"),
    "source.oci.image": _OWN_POD,
    "source.oci.subdirectory": _OWN_POD,
    "source.oci.interval": _BOUNDED,
    **_identity("source.oci.identity"),
    "source.flux.kind": _OWN_NAMESPACE,
    "source.flux.name": _OWN_NAMESPACE,
    "source.flux.subdirectory": _OWN_POD,
    "source.inline.files": _OWN_POD,
    "source.paths.include": _OWN_RUNS,
    "source.paths.exclude": _OWN_RUNS,
    "build.dockerfile": _OWN_IMAGE,
    "build.target": _OWN_IMAGE,
    "build.args": _OWN_IMAGE,
    "build.labels": _OWN_IMAGE,
    "build.secrets.id": _OWN_IMAGE,
    "build.secrets.secretKeyRef.name": Governed("stolen", _NO_SECRET, "secrets"),
    "build.secrets.secretKeyRef.key": Safe("a key of a Secret whose name is governed"),
    "build.ssh.secretRef.name": Governed("stolen", _NO_SECRET, "secrets"),
    "build.contexts": _OWN_IMAGE,
    "build.network": _OWN_IMAGE,
    **_identity("build.identity"),
    "output.image": Governed(
        "registry.example.com/other/app", {"outputs": [{"namespaces": ["*"], "registries": ["r.test/*"]}]}, "outputs"
    ),
    "output.tags": Safe("of a repository that outputs governs"),
    "output.annotations": _OWN_IMAGE,
    "output.compression.type": _OWN_IMAGE,
    "output.compression.level": _OWN_IMAGE,
    "output.compression.force": _OWN_IMAGE,
    "output.format": _OWN_IMAGE,
    "output.expire": Safe("deletes what this build has pushed to a repository that outputs governs"),
    "output.childTags": Safe("tags of a repository that outputs governs"),
    "output.destinations.image": Governed(
        "registry.example.com/other/app",
        {"outputs": [{"namespaces": ["*"], "registries": ["registry.example.com/team-a/*"]}]},
        "outputs",
    ),
    "output.destinations.secretRefs.name": Governed("stolen", _NO_SECRET, "secrets"),
    **_identity("output.destinations.identity"),
    **_identity("output.identity"),
    "output.secretRefs.name": Governed("stolen", _NO_SECRET, "secrets"),
    "output.signing.keyless": Governed(True, _tenant(), "signing.keyless"),  # noqa: FBT003
    "output.signing.secretRef.name": Governed("stolen", _NO_SECRET, "secrets"),
    "cache.repository": Governed(
        "registry.example.com/other/cache",
        {"outputs": [{"namespaces": ["*"], "registries": ["registry.example.com/team-a/*"]}]},
        "outputs",
    ),
    **_identity("cache.identity"),
    "cache.expire": Safe("deletes caches of this build, and of others as those have said themselves"),
    "cache.mode": _OWN_IMAGE,
    "cache.import": _OWN_IMAGE,
    "cache.volume.size": Governed("9Gi", {"cacheVolumes": {"maxSize": "8Gi"}}, "cacheVolumes.maxSize"),
    "cache.volume.storageClassName": Governed(
        "fast", {"cacheVolumes": {"maxSize": "8Gi"}}, "cacheVolumes.storageClasses"
    ),
    "scheduling.strategy": Governed("Emulated", {"emulation": {"allowed": False}}, "emulation"),
    "scheduling.nativeWait": _OWN_RUNS,
    "scheduling.pendingTimeout": _OWN_RUNS,
    "scheduling.keepBuilder": Safe("lowered to keptBuilders.max, and bounded in number by perNamespace and perCluster"),
    "scheduling.resources.requests": Governed({"cpu": 9}, {"maxResources": {"cpu": 8}}, "maxResources"),
    "scheduling.resources.limits": Governed({"cpu": 9}, {"maxResources": {"cpu": 8}}, "maxResources"),
    "scheduling.nodeSelector": Governed({"zone": "a"}, _NO_LABEL, "nodeLabels"),
    **_tolerations("scheduling.tolerations"),
    **_affinity("scheduling.affinity"),
    "scheduling.serviceAccountName": Governed("admin", _tenant(serviceAccounts=["default"]), "serviceAccounts"),
    "scheduling.priorityClassName": Governed("high", _tenant(priorityClasses=[]), "priorityClasses"),
    "scheduling.podMetadata.labels": Governed({"app": "db"}, {}, "buildMetadata"),
    "scheduling.podMetadata.annotations": Governed({"a": "b"}, {}, "buildMetadata"),
    "scheduling.overrides.platform": Safe("one of platforms"),
    "scheduling.overrides.strategy": Governed("Emulated", {"emulation": {"allowed": False}}, "emulation"),
    "scheduling.overrides.nodeSelector": Governed({"zone": "a"}, _NO_LABEL, "nodeLabels"),
    **_tolerations("scheduling.overrides.tolerations"),
    **_affinity("scheduling.overrides.affinity"),
    "scheduling.overrides.resources.requests": Governed({"cpu": 9}, {"maxResources": {"cpu": 8}}, "maxResources"),
    "scheduling.overrides.resources.limits": Governed({"cpu": 9}, {"maxResources": {"cpu": 8}}, "maxResources"),
    "attestations.provenance": _OWN_IMAGE,
    "attestations.record": _OWN_IMAGE,
    "attestations.sbom": Safe("runs the generator of images.sbom, which is the policy's, in the tenant's own pod"),
    "reproducible": _OWN_IMAGE,
    "rebuild.onBaseImage.interval": Safe("raised to rebuild.minInterval; looks at the same time are bounded (polling)"),
    "rebuild.onBaseImage.window.days": _OWN_RUNS,
    "rebuild.onBaseImage.window.start": _OWN_RUNS,
    "rebuild.onBaseImage.window.duration": _OWN_RUNS,
    "rebuild.schedule": Safe("one run goes on at a time, and concurrency.namespace bounds those of a namespace"),
    "rebuild.window.days": _OWN_RUNS,
    "rebuild.window.start": _OWN_RUNS,
    "rebuild.window.duration": _OWN_RUNS,
    "rebuild.retryInterval": Safe("raised to rebuild.minInterval, and doubled each time"),
    "timeout": Governed("2h", {"maxTimeout": "1h"}, "maxTimeout"),
    "retries": _OWN_RUNS,
    "suspend": _OWN_RUNS,
    "history.successful": Safe("how many ended pods are kept, at most 10"),
    "history.failed": Safe("how many ended pods are kept, at most 10"),
}
"""Each field of spec that holds a value. A new one fails the test below until somebody has thought about it."""


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in a type, behind Optional, Annotated and collections."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {Union, types.UnionType, Annotated, tuple, list, dict}:
        for part in get_args(annotation):
            yield from _models(part)


def leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the path of each field of a model, and of the models in it, that holds a value."""
    for name, field in model.model_fields.items():
        own = f"{path}{field.alias or name}"
        inner = list(_models(field.annotation))
        if not inner:
            yield own
        for each in inner:
            yield from leaves(each, f"{own}.")


def test_somebody_has_thought_about_every_field() -> None:
    assert sorted(leaves(Spec)) == sorted(FIELDS)


LISTS = {
    "secrets",
    "secretRefs",
    "destinations",
    "tolerations",
    "overrides",
    "nodeSelectorTerms",
    "matchExpressions",
} | {"preferredDuringSchedulingIgnoredDuringExecution"}
_BESIDE: dict[str, dict[str, Any]] = {
    "url": {"url": "https://git.example.com/a"},
    "overrides": {"platform": _ARM},
    "matchExpressions": {"key": "pool", "operator": "Exists"},
    "preferredDuringSchedulingIgnoredDuringExecution": {"weight": 1},
    "secrets": {"id": "x"},
    "git": {"url": "https://git.example.com/a"},
    "http": {"url": "https://git.example.com/a", "checksum": f"sha256:{'0' * 64}"},
    "output": {"image": "registry.example.com/team-a/app"},
    "destinations": {"image": "registry.example.com/team-a/copy"},
    "oci": {"image": "registry.example.com/team-a/source:1"},
    "cache": {"repository": "registry.example.com/team-a/cache"},
    "volume": {"size": "1Gi"},
    "identity": {
        "provider": "AWS",
        "role": "arn:aws:iam::123456789012:role/builds",
        "registries": ["123456789012.dkr.ecr.eu-west-1.amazonaws.com"],
    },
}
"""What a field needs beside it."""


def spec_with(path: str, value: Any) -> dict[str, Any]:
    """Return a part of spec in which the field has this value."""
    name, _, rest = path.partition(".")
    if not rest:
        beside = {"key": "key"} if name == "name" and "secrets" in path else {}
        return {name: value, **beside}
    inner = {**_BESIDE.get(name, {}), **spec_with(rest, value)}
    if name == "secrets":
        inner["secretKeyRef"] = {"key": "key", **inner["secretKeyRef"]}
    if name == "tolerations":
        inner = {"key": "pool", **inner}
    return {name: [inner] if name in LISTS else inner}


@pytest.mark.parametrize("path", [path for path, each in FIELDS.items() if isinstance(each, Governed)])
def test_what_is_governed_is_refused_by_its_rule(path: str) -> None:
    field = FIELDS[path]
    assert isinstance(field, Governed)
    message = refusal(build(**spec_with(path, field.value)), Policy.model_validate(field.policy))
    assert field.rule in message
    named = message.partition(" ")[0].replace(f"[{_ARM}]", "").split("[")[0]
    assert path.startswith(named) or named.startswith(path), f"{message} names another field than {path}"
    assert message.endswith(f"{WHO}.")
