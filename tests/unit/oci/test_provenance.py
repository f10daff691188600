"""The statements here have the shape of what BuildKit 0.32.2 writes with mode=max."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.oci.http import LIMIT
from multiarchbuild.oci.index import MANIFEST, Manifest, digest_of
from multiarchbuild.oci.provenance import needed, rewrite, settled

V1, V02, SPDX = "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2, "data": "e30="}
VCS = {"revision": "68771c2b", "source": "https://git.test/app.git"}
STEP = {"id": "step0", "op": {"Op": {"source": {"identifier": "local://dockerfile"}}}}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
RUNS = st.fixed_dictionaries({name: st.text(min_size=1) for name in ("id", "started", "finished", "step", "layer")})


def v1(run: dict[str, str], more: Any = None) -> dict[str, Any]:
    infos = [{"filename": "Dockerfile", "llbDefinition": [STEP], "digestMapping": {run["step"]: "step0"}}]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": V1,
        "subject": [{"name": "pkg:docker/r.test/app", "digest": {"sha256": "a1"}}],
        "predicate": {
            "buildDefinition": {
                "externalParameters": {"request": {"frontend": "dockerfile.v0", "more": more}},
                "internalParameters": {
                    "buildConfig": {"llbDefinition": [STEP], "digestMapping": {run["step"]: "step0"}},
                    "builderPlatform": "linux/amd64",
                },
            },
            "runDetails": {
                "builder": {"id": ""},
                "metadata": {
                    "invocationId": run["id"],
                    "startedOn": run["started"],
                    "finishedOn": run["finished"],
                    "buildkit_metadata": {
                        "vcs": VCS,
                        "source": {"locations": {"step0": {}}, "infos": infos},
                        "layers": {"step0:0": [[{"digest": run["layer"]}]]},
                    },
                    "buildkit_completeness": {"request": True},
                },
            },
        },
    }


def v02(run: dict[str, str], more: Any = None) -> dict[str, Any]:
    infos = [{"filename": "Dockerfile", "llbDefinition": [STEP], "digestMapping": {run["step"]: "step0"}}]
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": V02,
        "subject": [{"name": "pkg:docker/r.test/app", "digest": {"sha256": "a1"}}],
        "predicate": {
            "builder": {"id": ""},
            "invocation": {"parameters": {"frontend": "dockerfile.v0", "more": more}},
            "buildConfig": {"llbDefinition": [STEP], "digestMapping": {run["step"]: "step0"}},
            "metadata": {
                "buildInvocationID": run["id"],
                "buildStartedOn": run["started"],
                "buildFinishedOn": run["finished"],
                "completeness": {"parameters": True},
                "reproducible": False,
                "https://mobyproject.org/buildkit@v1#metadata": {
                    "vcs": VCS,
                    "source": {"locations": {"step0": {}}, "infos": infos},
                    "layers": {"step0:0": [[{"digest": run["layer"]}]]},
                },
            },
        },
    }


def raw(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


ONE = {"id": "uikz", "started": "2026-11-25T08:43:52Z", "finished": "2026-11-25T08:43:55Z", "step": "s", "layer": "l"}


@pytest.mark.parametrize("make", [v1, v02])
def test_what_is_of_one_build_alone_goes_and_all_else_stays(make: Any) -> None:
    found = json.loads(settled(raw(make(ONE))))
    infos = [{"filename": "Dockerfile", "llbDefinition": [STEP]}]
    buildkit = {"vcs": VCS, "source": {"locations": {"step0": {}}, "infos": infos}}
    wanted = make(ONE)
    if make is v1:
        wanted["predicate"]["buildDefinition"]["internalParameters"]["buildConfig"] = {"llbDefinition": [STEP]}
        wanted["predicate"]["runDetails"]["metadata"] = {
            "buildkit_metadata": buildkit,
            "buildkit_completeness": {"request": True},
        }
    else:
        wanted["predicate"]["buildConfig"] = {"llbDefinition": [STEP]}
        wanted["predicate"]["metadata"] = {
            "completeness": {"parameters": True},
            "reproducible": False,
            "https://mobyproject.org/buildkit@v1#metadata": buildkit,
        }
    assert found == wanted


@given(st.sampled_from([v1, v02]), RUNS, RUNS, JSON)
def test_two_builds_of_the_same_say_the_same(make: Any, one: dict[str, str], other: dict[str, str], more: Any) -> None:
    found = settled(raw(make(one, more)))
    assert found == settled(raw(make(other, more)))
    assert found == settled(found)


@given(st.sampled_from([v1, v02]), JSON, JSON)
def test_builds_of_something_else_still_differ(make: Any, more: Any, others: Any) -> None:
    same = settled(raw(make(ONE, more))) == settled(raw(make(ONE, others)))
    assert same == (raw(more) == raw(others))


@given(JSON.map(raw) | st.binary())
def test_what_is_no_statement_stays_byte_for_byte(blob: bytes) -> None:
    assert settled(blob) == blob


@given(JSON, st.sampled_from([SPDX, "https://slsa.dev/provenance/v2", "https://example.com/own"]))
def test_a_statement_of_another_kind_stays_byte_for_byte(predicate: Any, kind: str) -> None:
    for document in (v1(ONE), v02(ONE), {"predicate": predicate}):
        blob = json.dumps({**document, "predicateType": kind}, indent=1).encode()
        assert settled(blob) == blob


@pytest.mark.parametrize(
    "blob",
    [
        raw({**v1(ONE), "predicate": {"runDetails": ["not", "an", "object"]}}),
        raw({**v1(ONE), "predicate": {"runDetails": {"metadata": {"buildkit_metadata": {"source": {"infos": {}}}}}}}),
        raw({**v1(ONE), "predicateType": ["a list"]}),
        json.dumps({**v1(ONE), "more": float("inf")}).encode(),
        b'{"predicateType": "' + V1.encode() + b'", "predicate": ' + b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_stays_as_it_is(blob: bytes) -> None:
    assert settled(blob) == blob


def layer(blob: bytes, kind: str) -> dict[str, Any]:
    return {
        "mediaType": "application/vnd.in-toto+json",
        "digest": digest_of(blob),
        "size": len(blob),
        "annotations": {"in-toto.io/predicate-type": kind},
    }


def attestation(config: dict[str, Any], *layers: dict[str, Any], **more: Any) -> Manifest:
    document = {"schemaVersion": 2, "mediaType": MANIFEST, **more, "config": config, "layers": list(layers)}
    return Manifest(MANIFEST, json.dumps(document, indent=2).encode())


SBOM = raw({"predicateType": SPDX, "predicate": {"created": "2026-11-25T08:43:52Z"}})


def test_an_attestation_manifest_keeps_its_form() -> None:
    old = raw(v1(ONE))
    more = {"artifactType": "application/vnd.docker.attestation.manifest.v1+json"}
    manifest = attestation(EMPTY, layer(SBOM, SPDX), layer(old, V1), **more)
    assert needed(manifest) == (digest_of(old),), "the SBOM is not even read"
    found = rewrite(manifest, {digest_of(old): old})
    new = settled(old)
    assert found.blobs == {digest_of(new): new}
    assert found.manifest == attestation(EMPTY, layer(SBOM, SPDX), layer(new, V1), **more)


def test_the_config_of_an_image_lists_the_new_blobs() -> None:
    """As BuildKit before 0.32 makes it, and 0.32 with oci-artifact=false."""
    old = raw(v02(ONE))

    def parts(statement: bytes) -> tuple[bytes, Manifest]:
        rootfs = {"type": "layers", "diff_ids": [digest_of(SBOM), digest_of(statement)]}
        config = raw({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": rootfs})
        described = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config),
            "size": len(config),
        }
        return config, attestation(described, layer(SBOM, SPDX), layer(statement, V02))

    config, manifest = parts(old)
    assert set(needed(manifest)) == {digest_of(old), digest_of(config)}
    new = settled(old)
    new_config, new_manifest = parts(new)
    found = rewrite(manifest, {digest_of(old): old, digest_of(config): config})
    assert found.manifest == new_manifest
    assert found.blobs == {digest_of(new): new, digest_of(new_config): new_config}


def test_what_is_settled_already_is_not_pushed_again() -> None:
    statement = settled(raw(v1(ONE)))
    manifest = attestation(EMPTY, layer(statement, V1))
    found = rewrite(manifest, {digest_of(statement): statement})
    assert (found.manifest.raw, found.blobs) == (manifest.raw, {})


@pytest.mark.parametrize(
    "other",
    [
        {**layer(b"{}", V1), "size": LIMIT + 1},
        {**layer(b"{}", V1), "mediaType": "application/vnd.example"},
        {"mediaType": "application/vnd.in-toto+json", "digest": digest_of(b"{}"), "size": 2},
        layer(b"{}", SPDX),
    ],
)
def test_what_is_no_provenance_is_not_read(other: dict[str, Any]) -> None:
    manifest = attestation({**EMPTY, "mediaType": "application/vnd.oci.image.config.v1+json"}, other)
    assert needed(manifest) == ()
    assert rewrite(manifest, {}).manifest == manifest
