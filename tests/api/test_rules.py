"""Every rule of the resource refuses what it is there to refuse, and says what to write instead."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from multiarchbuild.api.crd import crd
from tests.api.conftest import Kubectl
from tests.api.objects import Object, base, changed, shown


class Refused(NamedTuple):
    """A value that breaks one rule."""

    path: str
    """Where the value goes and the error is reported; `*` is the first entry."""
    value: Any
    message: str
    """How the rule's message begins."""


_NAMES_A_REPOSITORY = "must be registry/repository in lower case without tag or digest"
_NAMES_A_HOST = "must begin with the host of a registry"
_NAMES_A_PATH = "must be a relative path inside the"
_NAMES_A_LABEL = "a label key is <name> or <domain>/<name>"
_REQUIRED = (
    ".scheduling.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.*"
    ".matchExpressions.*"
)

_SIGNS_IN_ONE_WAY = "name a Secret with a key in output.signing.secretRef, or set output.signing.keyless, and not both"
REFUSED = (
    Refused(".scheduling.podMetadata.labels", {"multiarch.build/run": "x"}, "keys of multiarch.build and app.kub"),
    Refused(".scheduling.podMetadata.labels", {"a b": "x"}, "a label key is <name> or <domain>/<name>"),
    Refused(".scheduling.podMetadata.labels.team", "a b", "a label value consists of letters"),
    Refused(".scheduling.podMetadata.annotations", {"app.kubernetes.io/managed-by": "x"}, "keys of multiarch.build an"),
    Refused(".scheduling.podMetadata.annotations", {"a b": "x"}, "an annotation key is <name> or <domain>/<name>"),
    Refused(".platforms.*", "amd64", "must be one of linux/amd64, "),
    Refused(".platforms.*", "linux/arm", "must be one of linux/amd64, "),
    Refused(".platforms.*", "windows/386", "must be one of linux/amd64, "),
    Refused(".platforms", ["linux/arm64", "windows/amd64"], "builders run on Linux: Windows platforms need"),
    Refused(".platforms", ["linux/arm64", "linux/arm64/v8"], "linux/arm64 and linux/arm64/v8 are the same platform"),
    # source
    Refused(".source", {}, "must name exactly one of git, http, oci, flux and inline"),
    Refused(
        ".source",
        {"git": {"url": "https://git.example.com/a"}, "inline": {"files": {"Dockerfile": ""}}},
        "must name exactly one of git, http, oci, flux and inline",
    ),
    Refused(".source.git.url", "git@git.example.com:team-a/app", "must be an http://, https:// or ssh:// URL"),
    Refused(".source.git.url", "https://git.example.com/app#main", "must be an http://, https:// or ssh:// URL"),
    Refused(".source.git.url", "https://user:pass@git.example.com/app", "must not hold a user or password"),
    Refused(".source.git.url", "ssh://git:pass@git.example.com/app", "must not hold a user or password"),
    Refused(".source.git.url", "ssh://-oProxyCommand=x/app", "must be ssh://user@host/path"),
    Refused(".source.git.url", "ssh://git@git.example.com:team-a/app", "must be ssh://user@host/path"),
    Refused(".source.git.interval", "9s", "must be at least 10s"),
    Refused(".source.git.interval", "5 minutes", "a duration consists of hours, minutes and seconds"),
    Refused(".source.git.ref", "a..b", "must be a branch, a tag, a commit"),
    Refused(".source.git.ref", "--upload-pack=x", "must be a branch, a tag, a commit"),
    Refused(".source.git.ref", "main:app", "must be a branch, a tag, a commit"),
    Refused(".source.git.ref", "main.lock", "must be a branch, a tag, a commit"),
    Refused(".source.git.subdirectory", "../other", _NAMES_A_PATH),
    Refused(
        path=".source.git.keepGitDir",
        value=True,
        message=".git is in the root of the repository, and with git.subdirectory",
    ),
    Refused(".source.git.subdirectory", "/app", _NAMES_A_PATH),
    Refused(".source.git.subdirectory", "app:x", _NAMES_A_PATH),
    Refused(".source.git.secretRef.name", "Git_Token", "the name of a Kubernetes object consists of"),
    Refused(".source.paths.include.*", "/services", "must be a path from the root of the repository"),
    Refused(".source.paths.include.*", "services/", "must be a path from the root of the repository"),
    Refused(".source.paths.include.*", "../libs", "must be a path from the root of the repository"),
    Refused(".source.paths.exclude.*", "!docs", "must be a path from the root of the repository"),
    Refused(".source.paths", {}, "must name something: write source.paths.include"),
    Refused(
        ".source",
        {"inline": {"files": {"Dockerfile": ""}}, "paths": {"include": ["a"]}},
        "commits and revisions of Flux are looked at by their files",
    ),
    Refused(".source.http.url", "ftp://files.example.com/app.tar", "must be an http:// or https:// URL"),
    Refused(".source.http.url", "https://user:pass@files.example.com/app.tar", "must not hold a user or password"),
    Refused(".source.http.checksum", "0" * 64, "must be sha256:<64 hexadecimal digits>"),
    Refused(".source.http.checksum", f"sha256:{'A' * 64}", "must be sha256:<64 hexadecimal digits>"),
    Refused(".source.http.subdirectory", "../other", _NAMES_A_PATH),
    Refused(".source.oci.image", "ghcr.io/team-a/source", "must be registry/repository:tag or"),
    Refused(".source.oci.image", "oci://ghcr.io/team-a/source:v1", "must be registry/repository:tag or"),
    Refused(".source.oci.image", "team-a/source:v1", _NAMES_A_HOST),
    Refused(".source.oci.subdirectory", "/app", _NAMES_A_PATH),
    Refused(".source.oci.interval", "9s", "must be at least 10s"),
    Refused(".source.flux.name", "App", "the name of a Kubernetes object consists of"),
    Refused(".source.flux.subdirectory", "a:b", _NAMES_A_PATH),
    Refused(".source.inline.files", {"../Dockerfile": ""}, "each name must be a relative path"),
    Refused(".source.inline.files", {"/Dockerfile": ""}, "each name must be a relative path"),
    Refused(".source.inline.files", {"src/./index.js": ""}, "each name must be a relative path"),
    Refused(".source.inline.files", {"src//index.js": ""}, "each name must be a relative path"),
    Refused(".source.inline.files", {f"src/{'a' * 250}": ""}, "each name must be a relative path"),
    Refused(
        ".source.inline.files", {"a": "x" * 200_000, "b": "x" * 100_000}, "may hold at most 256 KiB (UTF-8) together"
    ),
    Refused(".source.inline.files", {"a": "\N{PILE OF POO}" * 70_000}, "may hold at most 256 KiB (UTF-8) together"),
    # build
    Refused(".build.dockerfile", "../Dockerfile", "must be a relative path inside the source"),
    Refused(".build.dockerfile", "/Dockerfile", "must be a relative path inside the source"),
    Refused(".build.target", "run time", "must be the name of a stage"),
    Refused(".build.args", {"NODE-ENV": "production"}, "each name must be a variable name"),
    Refused(".build.args", {"A" * 129: ""}, "each name must be a variable name"),
    Refused(".build.labels", {"my label": ""}, "each name must be like org.opencontainers.image.source"),
    Refused(".build.secrets.*.id", "npm token", "an id consists of letters"),
    Refused(".build.secrets.*.id", "..", "an id must not be '.' or '..'"),
    Refused(".build.secrets.*.secretKeyRef.key", "../token", "a key of a Secret consists of"),
    Refused(".build.contexts", {"Base": "https://example.com/base.tar"}, "each name must be that of a stage or image"),
    Refused(".rebuild.schedule", "0 3 * *", "must be a schedule as of cron, in UTC"),
    Refused(".rebuild.retryInterval", "10s", "must be at least 1m"),
    Refused(".rebuild.onBaseImage.interval", "30s", "must be at least 1m"),
    Refused(".rebuild.onBaseImage.window.start", "25:00", "must be a time of day in UTC, such as 22:00"),
    Refused(".rebuild.onBaseImage.window.duration", "25h", "must be from 1m to 24h"),
    Refused(".build.contexts.*", "multiarchbuild://Base", "each value must begin with docker-image://"),
    Refused(".build.contexts.*", "./base", "each value must begin with docker-image://"),
    # output
    Refused(".output.signing.secretRef.name", "Cosign_Key", "the name of a Kubernetes object consists of"),
    Refused(".output.signing", {}, _SIGNS_IN_ONE_WAY),
    Refused(".output.signing", {"keyless": False}, _SIGNS_IN_ONE_WAY),
    Refused(".output.image", "registry.example.com/Team-A/app", _NAMES_A_REPOSITORY),
    Refused(".output.image", "registry.example.com/team-a/app:1.0", _NAMES_A_REPOSITORY),
    Refused(".output.image", f"registry.example.com/app@sha256:{'0' * 64}", _NAMES_A_REPOSITORY),
    Refused(".output.image", "https://registry.example.com/app", _NAMES_A_REPOSITORY),
    Refused(".output.image", "busybox", _NAMES_A_REPOSITORY),
    Refused(".output.image", "team-a/app", _NAMES_A_HOST),
    Refused(".cache.repository", "team-a/app-cache", _NAMES_A_HOST),
    Refused(".output.tags.*", "1.0+build", "a tag consists of letters, digits"),
    Refused(".output.tags.*", "{sha}", "a tag consists of letters, digits"),
    Refused(".output.tags.*", "{commit.__class__}", "a tag consists of letters, digits"),
    Refused(".output.tags.*", "-1.0", "a tag consists of letters, digits"),
    Refused(".output.tags.*", "cache-main", "a tag must not begin with cache-"),
    Refused(".output.tags.*", "sha256-0.sig", "a tag must not begin with sha256-"),
    Refused(".output.annotations", {"a b": ""}, "each name must be like org.opencontainers.image.source"),
    Refused(".output.compression.level", 10, "Gzip and Estargz have the levels 0 to 9"),
    Refused(".output.compression.type", "Uncompressed", "layers that are not compressed have no level"),
    Refused(".output.destinations.*.image", "mirror.example.com/app:1", _NAMES_A_REPOSITORY),
    Refused(".output.identity.role", "builds", "AWS needs the ARN of a role"),
    Refused(".output.identity.tenantId", "11111111-2222-3333-4444-555555555555", "tenantId is for Azure only"),
    Refused(
        ".output.identity.workloadIdentityProvider",
        "projects/42/locations/global/workloadIdentityPools/clusters/providers/test",
        "workloadIdentityProvider is for Google only",
    ),
    Refused(".output.identity.registries.*", "r.test/app", "must be the host of a registry"),
    Refused(".output.destinations.*.identity.role", "builds", "Azure needs the client id"),
    Refused(".output.destinations.*.identity.tenantId", "example.com", "must be the id of a tenant"),
    Refused(".build.identity.role", "builds", "of Google, role is the e-mail address of a service account"),
    Refused(".build.identity.workloadIdentityProvider", "test", "must be projects/NUMBER/locations/global/"),
    Refused(".build.identity", {"provider": "Google"}, "name the hosts of the base images' registries"),
    Refused(".output.expire", "59m", "must be at least 1h"),
    Refused(".cache.volume.storageClassName", "Fast_Disk", "the name of a Kubernetes object consists of"),
    Refused(".cache.expire", "1 week", "a duration consists of hours, minutes and seconds"),
    Refused(".output.format", "Manifest", "a manifest has one platform and no attestations"),
    # scheduling
    Refused(".scheduling.nativeWait", "2 minutes", "a duration consists of hours, minutes and seconds"),
    Refused(".scheduling.nativeWait", "-5m", "a duration consists of hours, minutes and seconds"),
    Refused(".scheduling.resources.requests", {"CPU!": "1"}, "the name of a resource is cpu, memory"),
    Refused(".scheduling.nodeSelector", {"/pool": "a"}, _NAMES_A_LABEL),
    Refused(".scheduling.nodeSelector.*", "a b", "a label value consists of"),
    Refused(".scheduling.nodeSelector", {"kubernetes.io/os": "windows"}, "builders run on Linux"),
    Refused(".scheduling.pendingTimeout", "0m0s", "a pod needs time to get a node: write 90s, 10m or 1h"),
    Refused(".scheduling.tolerations.*.key", "a b", "a taint key is <name> or <domain>/<name>"),
    Refused(".scheduling.tolerations.*.value", "a b", "a taint value consists of"),
    Refused(".scheduling.tolerations.*", {"operator": "Equal", "value": "a"}, "a toleration with operator Equal needs"),
    Refused(
        ".scheduling.tolerations.*",
        {"key": "a", "operator": "Exists", "value": "a"},
        "a toleration with operator Equal needs a key, one with Exists takes no value",
    ),
    Refused(".scheduling.tolerations.*.effect", "NoSchedule", "tolerationSeconds needs effect NoExecute"),
    Refused(f"{_REQUIRED}.key", "a b", "a label key is <name> or <domain>/<name>"),
    Refused(f"{_REQUIRED}.values", [], "In and NotIn need values"),
    Refused(f"{_REQUIRED}.operator", "Exists", "In and NotIn need values"),
    Refused(".scheduling.overrides.*.strategy", "Cross", "strategy Cross is for all platforms at once"),
    # rules between fields
    Refused(".scheduling.overrides.*.platform", "linux/s390x", "each platform of scheduling.overrides must also be"),
    Refused(".timeout", "0h0m", "a run needs time"),
)

COMBINED = (
    (
        "ssh-without-key",
        changed(base(".source.git"), ".source.git", {"url": "ssh://git@git.example.com/app"}),
        "spec.source.git.url",
        "an ssh:// URL needs git.secretRef: name a Secret with ssh-privatekey (or identity) and known_hosts",
    ),
    (
        "polled-commit",
        changed(base(".source.git"), ".source.git.ref", "0" * 40),
        "spec.source.git.interval",
        "a commit never moves: remove git.interval, or name a branch in git.ref",
    ),
    (
        "polled-digest",
        changed(base(".source.oci"), ".source.oci.image", f"ghcr.io/team-a/source@sha256:{'0' * 64}"),
        "spec.source.oci.interval",
        "a digest never moves: remove oci.interval, or name a tag in oci.image",
    ),
    (
        "commit-without-git",
        changed(base(".source.inline"), ".output.tags", ["{shortCommit}"]),
        "spec.output.tags",
        "the placeholders {commit}, {shortCommit} and {ref} need source.git, or source.flux with a GitRepository",
    ),
    (
        "commit-of-a-bucket",
        changed(base(".source.flux"), ".source.flux.kind", "Bucket"),
        "spec.output.tags",
        "the placeholders {commit}, {shortCommit} and {ref} need source.git, or source.flux with a GitRepository",
    ),
    (
        "override-of-a-shared-builder",
        changed(
            base(""),
            ".scheduling",
            {"strategy": "Cross", "overrides": [{"platform": "linux/arm64", "nodeSelector": {"pool": "graviton"}}]},
        ),
        "spec.scheduling.overrides",
        "with strategy Cross one builder makes every platform: give the override a strategy of its own, or ",
    ),
    (
        "destination-twice",
        changed(base(""), ".output.destinations.*.image", base("")["output"]["image"]),
        "spec.output.destinations",
        "output.image is the first destination: name only further ones in output.destinations",
    ),
    (
        "signed-twice",
        changed(base(""), ".output.signing.keyless", value=True),
        "spec.output.signing",
        _SIGNS_IN_ONE_WAY,
    ),
    (
        "identity-of-no-cache",
        changed(base(""), ".cache.repository", None),
        "spec.cache.identity",
        "name the repository that it logs in to: set cache.repository, or remove cache.identity",
    ),
    (
        "volume-of-no-cache",
        changed(base(""), ".cache.mode", "Disabled"),
        "spec.cache.volume",
        "with mode Disabled nothing is cached: remove cache.volume, or set another mode",
    ),
    (
        "two-epochs",
        changed(changed(base(""), ".reproducible", value=True), ".build.args", {"SOURCE_DATE_EPOCH": "0"}),
        "spec.build.args",
        "SOURCE_DATE_EPOCH is set from the commit: remove it, or set spec.reproducible to false",
    ),
)
"""Name, spec, where the error is reported, its message."""

_NAMES = tuple(f"rule-{number}" for number in range(len(REFUSED)))

_REPORTED = {
    ".scheduling.tolerations.*.effect": ".scheduling.tolerations.*.tolerationSeconds",
    f"{_REQUIRED}.operator": f"{_REQUIRED}.values",
    ".output.compression.type": ".output.compression.level",
    ".scheduling.overrides.*.platform": ".scheduling.overrides",
}
"""Rules between fields that are reported at another field than the one that the row changes."""


@pytest.fixture(scope="module")
def refusals(kube: Kubectl) -> dict[str, str]:
    """Return what the API server says to each row, by its name."""
    rows = {name: changed(base(row.path), row.path, row.value) for name, row in zip(_NAMES, REFUSED, strict=True)}
    return kube.refusals(rows | {name: spec for name, spec, _, _ in COMBINED})


@pytest.mark.parametrize(
    ("name", "row"), [*zip(_NAMES, REFUSED, strict=True)], ids=[f"{row.path[1:]}: {row.message}" for row in REFUSED]
)
def test_a_value_that_breaks_a_rule_is_refused(refusals: dict[str, str], name: str, row: Refused) -> None:
    field = shown(base(row.path), _REPORTED.get(row.path, row.path))
    # A field of a map is written as [key] for a rule and as .key for a bound.
    told = re.sub(r"\[([a-z]\w*)\]:", r".\1:", refusals[name])
    assert re.search(rf'{re.escape(field)}: Invalid value: (".*?": )?{re.escape(row.message)}', told), told


@pytest.mark.parametrize(("name", "spec", "field", "message"), COMBINED, ids=[row[0] for row in COMBINED])
def test_fields_that_contradict_each_other_are_refused(
    refusals: dict[str, str], name: str, spec: Object, field: str, message: str
) -> None:
    assert spec
    assert refusals[name].startswith(f"{field}: Invalid value: ")
    assert message in refusals[name]


def test_every_rule_has_a_row() -> None:
    told = tuple(row.message for row in REFUSED) + tuple(message for *_, message in COMBINED)
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert {rule for rule in _rules(schema) if not any(rule.startswith(message) for message in told)} == set()


def _rules(schema: Object) -> Iterator[str]:
    yield from (rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
    for child in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if child:
            yield from _rules(child)
