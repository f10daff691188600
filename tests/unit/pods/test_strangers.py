"""A spec that says all that there is to say: whatever its pods name of the cluster, the policy was asked about."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import Source
from multiarchbuild.api.status import CacheVolumeUse
from multiarchbuild.plan.actions import Keep
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.rules import pod_refusal
from multiarchbuild.pods import render
from tests.unit.plan.test_tenants import FIELDS
from tests.unit.pods.test_render import PUBLISH, RESOLVE, resource, start

ARM = "linux/arm64"
HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


def _role(name: str) -> dict[str, Any]:
    return {"provider": "AWS", "role": f"arn:aws:iam::123456789012:role/{name}", "registries": [HOST]}


_POOL = "projects/42/locations/global/workloadIdentityPools/p/providers/q"
_GOOGLE = {"provider": "Google", "workloadIdentityProvider": _POOL, "registries": ["europe-docker.pkg.dev"]}
_TENANT = "00000000-0000-0000-0000-000000000001"
_AZURE = {"provider": "Azure", "role": _TENANT, "tenantId": _TENANT, "registries": ["a.azurecr.io"]}
_TERM = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
_PLACE = {
    "nodeSelector": {"pool": "a"},
    "tolerations": [
        {"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoExecute", "tolerationSeconds": 7},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_TERM]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": _TERM}],
        }
    },
    "resources": {"requests": {"cpu": "1", "example.com/chip": "1"}, "limits": {"cpu": "1", "example.com/chip": "1"}},
}
_WINDOW = {"days": ["Mon"], "start": "22:00", "duration": "1h"}
SOURCES: dict[str, dict[str, Any]] = {
    "git": {
        "git": {
            "url": "https://git.test/app",
            "ref": "main",
            "subdirectory": "a",
            "keepGitDir": True,
            "interval": "10m",
            "secretRef": {"name": "git"},
        },
        "paths": {"include": ["a/**"], "exclude": ["b"]},
    },
    "http": {
        "http": {
            "url": "https://web.test/a.tar",
            "checksum": f"sha256:{'0' * 64}",
            "subdirectory": "a",
            "secretRef": {"name": "http"},
        }
    },
    "oci": {
        "oci": {
            "image": f"{HOST}/source:1",
            "subdirectory": "a",
            "interval": "10m",
            "identity": _role("source"),
        }
    },
    "flux": {"flux": {"kind": "GitRepository", "name": "app", "subdirectory": "a"}},
    "inline": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
}
EVERYTHING: dict[str, Any] = {
    "platforms": [ARM],
    "build": {
        "dockerfile": "Dockerfile",
        "target": "t",
        "args": {"A": "b"},
        "labels": {"a": "b"},
        "secrets": [{"id": "npm", "secretKeyRef": {"name": "build", "key": "token"}}],
        "ssh": {"secretRef": {"name": "ssh"}},
        "contexts": {"base": "multiarchbuild://parent", "other": "docker-image://r.test/a"},
        "network": "None",
        "identity": _GOOGLE,
    },
    "output": {
        "image": f"{HOST}/app",
        "tags": ["v1"],
        "annotations": {"a": "b"},
        "compression": {"type": "Zstd", "level": 3, "force": True},
        "format": "Index",
        "expire": "720h",
        "childTags": True,
        "secretRefs": [{"name": "registry"}],
        "identity": _role("output"),
        "destinations": [
            {"image": "r.test/copy", "secretRefs": [{"name": "destination"}]},
            {"image": "a.azurecr.io/copy", "identity": _AZURE},
        ],
    },
    "cache": {
        "repository": f"{HOST}/cache",
        "identity": _role("cache"),
        "expire": "720h",
        "mode": "Max",
        "import": True,
        "volume": {"size": "10Gi", "storageClassName": "fast"},
    },
    "scheduling": {
        **_PLACE,
        "strategy": "Native",
        "nativeWait": "1m",
        "pendingTimeout": "1m",
        "keepBuilder": "10m",
        "serviceAccountName": "builder",
        "priorityClassName": "low",
        "podMetadata": {"labels": {"example.com/label": "b"}, "annotations": {"example.com/note": "b"}},
        "overrides": [{"platform": ARM, "strategy": "Native", **_PLACE}],
    },
    "attestations": {"provenance": "Max", "record": True, "sbom": True},
    "reproducible": False,
    "rebuild": {
        "onBaseImage": {"interval": "1h", "window": _WINDOW},
        "schedule": "0 3 * * *",
        "window": _WINDOW,
        "retryInterval": "1h",
    },
    "timeout": "1h",
    "retries": 1,
    "suspend": False,
    "history": {"successful": 1, "failed": 1},
}
"""All of a spec but its source, which is one of `SOURCES`, and its signature, which is one of `SIGNING`."""
SIGNING: dict[str, dict[str, Any]] = {"key": {"secretRef": {"name": "signing"}}, "keyless": {"keyless": True}}
MAPS = {"args", "labels", "annotations", "contexts", "nodeSelector", "requests", "limits", "files"}


def _paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the fields of spec that a document has."""
    if isinstance(value, dict) and path.rpartition(".")[2] not in MAPS:
        for name, inner in value.items():
            yield from _paths(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for each in value:
            yield from _paths(each, path)
    else:
        yield path


def _once(path: str) -> set[str]:
    """Return what has to be said of a field: of an identity each part once, and each place where there is one."""
    place, identity, part = path.partition(".identity.")
    return {f"{place}{identity}", f"identity.{part}"} if identity else {path}


BUILDS = [(source, signing) for source in SOURCES for signing in SIGNING]


def _spec(source: str, signing: str) -> dict[str, Any]:
    output = {**EVERYTHING["output"], "signing": SIGNING[signing]}
    return {**EVERYTHING, "source": SOURCES[source], "output": output}


def test_it_says_everything() -> None:
    said = {part for source, signing in BUILDS for path in _paths(_spec(source, signing)) for part in _once(path)}
    missing = {part for path in FIELDS for part in _once(path)} - said
    assert missing == set(), "a new field: give it a value here"


def _build(source: str, signing: str = "key") -> MultiArchBuild:
    return resource(**_spec(source, signing))


POLICY: dict[str, Any] = {
    "maxResources": {"example.com/chip": 2},
    "buildMetadata": ["example.com/*"],
    "cacheVolumes": {"maxSize": "20Gi", "storageClasses": ["fast"]},
    "images": {"step": "step.test/a", "buildkit": "buildkit.test/a-rootless"},
}


KEYLESS = {"fulcio": "https://fulcio.example.com", "timestampAuthority": "https://tsa.example.com/api/v1/timestamp"}


def _pods(source: str, signing: str) -> Iterator[dict[str, Any]]:
    """Yield every pod that there can be."""
    policy, build = _tenant(), _build(source, signing)
    commit = Source(commit="0" * 40, ref="main")
    check = replace(RESOLVE, role=Role.CHECK)
    looks = (check, replace(check, artifact=commit), replace(RESOLVE, role=Role.CHECK_BASES, bases=("r.test/base:1",)))
    kept = start(platforms=(Platform.parse(ARM),), keep=Keep(idle=60, life=3600))
    with_volume = start(claim="c", volume=CacheVolumeUse.USED)
    for action in (RESOLVE, *looks, start(), kept, with_volume, PUBLISH):
        yield render(action, build, policy)


def _named(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield what a part of a pod names of the cluster: its kind, and its name."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in {"secretName", "serviceAccountName", "priorityClassName", "runtimeClassName", "claimName"}:
                yield name, inner
            elif name in {"configMap", "configMapRef", "configMapKeyRef", "secretRef", "secretKeyRef"}:
                yield name, inner["name"]
            elif name in {"audience", "nodeName", "schedulerName"}:
                yield name, inner
            else:
                yield from _named(inner, name)
    elif isinstance(value, list):
        for each in value:
            if key == "imagePullSecrets":
                yield "secretName", each["name"]
            yield from _named(each, key)


ASKED = {
    "secretName": ("secrets", {"git", "http", "build", "ssh", "registry", "signing", "destination"}),
    "serviceAccountName": ("serviceAccounts", {"builder"}),
    "priorityClassName": ("priorityClasses", {"low"}),
}
"""What pods name by the rule of the policy that is asked about it, and which names a spec above has of it."""


def _tenant(**entry: Any) -> Policy:
    allowed = {"namespaces": ["*"], "identities": ["*"], "signing": {"keyless": KEYLESS}}
    return Policy.model_validate({**POLICY, "tenants": [{**allowed, **entry}]})


@pytest.mark.parametrize(("source", "signing"), BUILDS)
def test_the_policy_is_asked_about_all_that_pods_name(source: str, signing: str) -> None:
    build = _build(source, signing)
    assert pod_refusal(build, _tenant()) == "", "all of it is allowed"
    named = {each for pod in _pods(source, signing) for each in _named(pod)}
    # The operator names these two, and makes them.
    for kind, name in named - {("configMap", "in"), ("claimName", "c")}:
        if kind == "audience":
            continue
        assert kind in ASKED, f"nobody asks the policy about {kind} {name}"
        rule, names = ASKED[kind]
        others = sorted(names - {name})
        assert f"is {name}, but" in pod_refusal(build, _tenant(**{rule: others})), f"{kind} {name} goes through"


@pytest.mark.parametrize(("source", "signing"), BUILDS)
def test_tokens_are_for_services_that_the_policy_allows(source: str, signing: str) -> None:
    tokens = {
        "sts.amazonaws.com": "aws/*",
        f"https://iam.googleapis.com/{_POOL}": "google/*",
        "api://AzureADTokenExchange": "azure/*",
    }
    build = _build(source, signing)
    audiences = {name for pod in _pods(source, signing) for kind, name in _named(pod) if kind == "audience"}
    assert audiences == {*tokens, *({"sigstore"} if signing == "keyless" else ())}
    for audience in tokens:
        allowed = [pattern for name, pattern in tokens.items() if name != audience]
        assert "identities)" in pod_refusal(build, _tenant(identities=allowed)), audience
    if signing == "keyless":
        assert "signing.keyless)" in pod_refusal(build, _tenant(signing={}))


@pytest.mark.parametrize("source", SOURCES)
def test_a_spec_chooses_neither_images_nor_programs_nor_rights_of_a_container(source: str) -> None:
    plain = resource(source={"inline": {"files": {"Dockerfile": "FROM scratch"}}}, output={"image": "r.test/a"})
    policy = Policy.model_validate(POLICY)
    for action in (RESOLVE, start(), PUBLISH):
        own, other = (render(action, build, policy)["spec"] for build in (_build(source), plain))
        for kind in ("containers", "initContainers"):
            for ours, theirs in zip(own.get(kind, ()), other.get(kind, ()), strict=True):
                for part in ("name", "image", "command", "securityContext", "envFrom", "ports", "lifecycle"):
                    assert ours.get(part) == theirs.get(part), part
                names = [[each["name"] for each in container.get("env", ())] for container in (ours, theirs)]
                assert names[0] == names[1]
        for part in (
            "securityContext",
            "hostUsers",
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "automountServiceAccountToken",
        ):
            assert own.get(part) == other.get(part), part
        kinds = {kind for volume in own["volumes"] for kind in set(volume) - {"name"}}
        assert kinds <= {"emptyDir", "secret", "configMap", "downwardAPI", "projected"}
        for volume in own["volumes"]:
            assert all(set(each) == {"serviceAccountToken"} for each in volume.get("projected", {}).get("sources", ()))
