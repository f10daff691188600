"""The main job: one resource becomes one verified image for two platforms."""

import hashlib
import json
import re
from typing import Any

import pytest

from tests.support.gate import Gate
from tests.support.tenant import AMD64, ARM64, Tenant, condition, inline, platform

pytestmark = pytest.mark.e2e

MACHINES = {AMD64: "x86_64", ARM64: "aarch64"}
UNKNOWN = {"architecture": "unknown", "os": "unknown"}


def test_two_platforms_become_one_verified_image(tenant: Tenant, gate: Gate) -> None:
    # Not in the order of the alphabet: the index follows the spec.
    order = [ARM64, AMD64]
    dockerfile = f"FROM busybox:1.36\nRUN uname -m > /machine\nRUN {gate.wait()}\nCMD cat /machine\n"
    build = tenant.build(platforms=order, source=inline(dockerfile), output={"tags": ["latest", "v1"]})
    build.until(
        lambda status: [entry["phase"] for entry in status.get("run", {}).get("platforms", ())] == ["Running"] * 2,
        why="both are built at the same time",
    )
    gate.open()
    tenant.kubectl("wait", "mab/app", "--for=condition=Ready", "--timeout=300s")
    status = build.succeeded()

    amd64, arm64 = platform(status, AMD64), platform(status, ARM64)
    assert {amd64["mode"], arm64["mode"]} == {"Native"}
    nodes = tenant.target.nodes
    assert [nodes[entry["node"]] for entry in (amd64, arm64)] == ["amd64", "arm64"]

    for entry in (amd64, arm64):
        (warning,) = entry["warnings"]
        assert re.fullmatch(r"JSONArgsRecommended: .* \(line 4\)", warning)

    image = status["image"]
    raw = tenant.images.raw(image["ref"])
    assert image["ref"] == f"{tenant.image()}@{image['digest']}"
    assert image["digest"] == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    assert image["tags"] == ["latest", "v1"]
    assert {tenant.images.digest(f"{tenant.image()}:{tag}") for tag in image["tags"]} == {image["digest"]}
    entries = json.loads(raw)["manifests"]
    assert [_platform(entry) for entry in entries[:2]] == order
    assert [entry["platform"] for entry in entries[2:]] == [UNKNOWN, UNKNOWN]
    assert [entry["annotations"]["vnd.docker.reference.digest"] for entry in entries[2:]] == [
        entry["digest"] for entry in entries[:2]
    ]
    assert [entry["digest"] for entry in image["platforms"]] == [entry["digest"] for entry in entries[:2]]
    # What BuildKit pushed for a platform is an index of its own; the images of it are taken over byte by byte, and
    # of the attestation manifests all but what differs between two builds of the same.
    assert [platform(status, name)["digest"] for name in order] == [entry["digest"] for entry in entries[:2]]
    pushed = [_descriptors(tenant.images.raw(f"{tenant.image()}@{platform(status, name)['pushed']}")) for name in order]
    assert _descriptors(raw)[:2] == [image for image, _ in pushed]
    assert [entry["annotations"] for entry in entries[2:]] == [json.loads(own)["annotations"] for _, own in pushed]
    for name, entry in zip(order, entries[:2], strict=True):
        ref = f"{tenant.image()}@{entry['digest']}"
        assert tenant.images.file(ref, "/machine").strip() == MACHINES[name]
        manifest = tenant.images.manifest(ref)
        size = manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"])
        assert next(known["size"] for known in image["platforms"] if known["platform"] == name) == size
    provenance = tenant.images.manifest(f"{tenant.image()}@{entries[2]['digest']}")
    assert [layer["annotations"]["in-toto.io/predicate-type"] for layer in provenance["layers"]] == [
        "https://slsa.dev/provenance/v1"
    ]

    publish = tenant.kubectl("logs", status["run"]["publish"]["pod"], "-c", "step")
    told = [publish.index(f"{word} ") for word in ("pushing index", "verified", "tagged")]
    assert told == sorted(told), "tags move to what was verified"
    assert {kind["type"]: kind["status"] for kind in status["conditions"]} == {"Ready": "True", "Succeeded": "True"}
    happened = _happened(build.events(RunStarted=1, Succeeded=1))
    happened.pop("Unschedulable", None)  # while builds of others fill the nodes
    assert happened == {"RunStarted": 1, "Succeeded": 1}
    wide = build.columns("-o", "wide")
    assert (wide["READY"], wide["REASON"], wide["PLATFORMS"]) == ("True", "Succeeded", "2/2")
    assert image["digest"].startswith(f"sha256:{wide['DIGEST']}")
    assert wide["IMAGE"] == tenant.image()


def test_one_platform_that_fails_moves_no_tag_and_keeps_what_the_other_built(tenant: Tenant) -> None:
    images, tag = tenant.images, f"{tenant.image()}:latest"
    images.copy(f"{tenant.target.facts.registry}/library/busybox:1.36", tag)
    before = images.digest(tag)
    tenant.secret("gate", state="closed")
    dockerfile = (
        "FROM busybox:1.36\n"
        "RUN --mount=type=secret,id=gate,required=true"
        " [ $(uname -m) = x86_64 ] || grep open /run/secrets/gate || { echo the gate is shut; exit 3; }\n"
    )
    secrets = [{"id": "gate", "secretKeyRef": {"name": "gate", "key": "state"}}]
    build = tenant.build(source=inline(dockerfile), build={"secrets": secrets})
    first = build.failed("BuildFailed")
    assert images.digest(tag) == before
    assert platform(first, AMD64)["phase"] == "Succeeded"
    arm64 = platform(first, ARM64)
    assert (arm64["phase"], arm64["attempt"]) == ("Failed", 1), "what a RUN says is not asked twice"
    assert "exit code 3" in arm64["message"]
    assert "the gate is shut" in arm64["logTail"]
    assert ARM64 in condition(first, "Ready")["message"]
    assert "image" not in first
    assert "publish" not in first["run"]

    tenant.secret("gate", state="open")
    build.rebuild()
    second = build.succeeded(after=first["run"]["id"])
    assert second["run"]["trigger"] == "Requested"
    kept = platform(first, AMD64)
    # What the image is built from, status.image says once there is one.
    assert second["image"]["bases"] == kept.pop("bases")
    assert platform(second, AMD64) == kept, "kept as it was"
    assert platform(second, ARM64)["pod"] != arm64["pod"]
    built = [pod for pod in build.pods() if pod["metadata"]["labels"]["multiarch.build/role"] == "build"]
    assert len(built) == 3, "two at first, and the one that was missing"
    assert images.digest(tag) == second["image"]["digest"] != before
    assert [(entry["result"], entry["reason"]) for entry in second["history"]] == [
        ("Succeeded", "Succeeded"),
        ("Failed", "BuildFailed"),
    ]


def test_the_longest_name_that_an_object_can_have(tenant: Tenant) -> None:
    build = tenant.build("a" + "-b.c" * 63, platforms=[AMD64])
    assert len(build.name) == 253
    build.succeeded()
    assert _happened(build.events(Succeeded=1))["Succeeded"] == 1


def _platform(descriptor: dict[str, Any]) -> str:
    return f"{descriptor['platform']['os']}/{descriptor['platform']['architecture']}"


def _descriptors(index: bytes) -> list[str]:
    """Return each descriptor as it is written in the index, but for the white space between its parts."""
    return [json.dumps(entry) for entry in json.loads(index)["manifests"]]


def _happened(events: list[dict[str, Any]]) -> dict[str, int]:
    reasons = [event["reason"] for event in events]
    return {reason: reasons.count(reason) for reason in reasons}
