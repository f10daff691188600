"""Provenance without what no two builds have in common, so that the same build gives the same index again.

BuildKit 0.32.2 writes a random id and two times into every statement, with mode `max` also the digests of its build
steps, which have the id of a session in them, and the layers of these steps from before their timestamps were
rewritten. No option leaves them out. All are optional for SLSA, and nothing is signed by BuildKit that could break.

Sources: https://slsa.dev/spec/v1.1/provenance, https://slsa.dev/spec/v0.2/provenance,
https://github.com/moby/buildkit/blob/v0.32.2/docs/attestations/slsa-definitions.md and attestation-storage.md there
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from multiarchbuild.api.foreign import parse_object

from .http import LIMIT
from .index import Descriptor, Manifest, digest_of

_STATEMENT = "application/vnd.in-toto+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_PREDICATE = "in-toto.io/predicate-type"
_EACH: Final = "*"
"""In a path: every entry of a list."""

_V1 = ("predicate", "runDetails", "metadata")
_V02 = ("predicate", "metadata")
_V02_BUILDKIT = (*_V02, "https://mobyproject.org/buildkit@v1#metadata")
_STEPS = "digestMapping"
_VOLATILE: Mapping[str, Sequence[Sequence[str]]] = {
    "https://slsa.dev/provenance/v1": (
        (*_V1, "invocationId"),
        (*_V1, "startedOn"),
        (*_V1, "finishedOn"),
        (*_V1, "buildkit_metadata", "layers"),
        (*_V1, "buildkit_metadata", "source", "infos", _EACH, _STEPS),
        ("predicate", "buildDefinition", "internalParameters", "buildConfig", _STEPS),
    ),
    "https://slsa.dev/provenance/v0.2": (
        (*_V02, "buildInvocationID"),
        (*_V02, "buildStartedOn"),
        (*_V02, "buildFinishedOn"),
        (*_V02_BUILDKIT, "layers"),
        (*_V02_BUILDKIT, "source", "infos", _EACH, _STEPS),
        ("predicate", "buildConfig", _STEPS),
    ),
}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """An attestation manifest that takes the place of another, with the blobs that only it has."""

    manifest: Manifest
    blobs: Mapping[str, bytes]
    """Content by digest; a registry wants them before the manifest."""


def needed(manifest: Manifest) -> tuple[str, ...]:
    """Return the digests of the blobs that `rewrite` reads: none where there is no provenance of at most 4 MiB."""
    config, layers = manifest.content["config"], manifest.content["layers"]
    provenance = tuple(layer["digest"] for layer in layers if _is_provenance(layer))
    if not provenance or config["mediaType"] == _EMPTY:
        return provenance
    return (*provenance, config["digest"])


def others(manifest: Manifest) -> frozenset[str]:
    """Return the types of the predicates in an attestation manifest that are no provenance, such as that of SPDX."""
    types = {layer.get("annotations", {}).get(_PREDICATE, "") for layer in manifest.content["layers"]}
    return frozenset(types - _VOLATILE.keys() - {""})


def rewrite(manifest: Manifest, blobs: Mapping[str, bytes]) -> Rewritten:
    """Return `manifest` with provenance that the next build of the same has too; `blobs` has what is `needed`.

    What is not provenance stays as it is, and a manifest in which nothing changes stays the same bytes.
    """
    content = manifest.content
    provenance = [layer["digest"] for layer in content["layers"] if _is_provenance(layer)]
    statements = {name: settled(blobs[name]) for name in provenance}
    changed = {name: statement for name, statement in statements.items() if statement != blobs[name]}
    if not changed:
        return Rewritten(manifest, {})
    config, new = content["config"], list(changed.values())
    if config["mediaType"] != _EMPTY:
        # Before BuildKit 0.32 the config is that of an image, and lists the layers once more.
        named = {old: digest_of(statement) for old, statement in changed.items()}
        raw = _with_diff_ids(blobs[config["digest"]], named)
        config = _described(config, raw)
        new.append(raw)
    layers = [
        _described(layer, changed[layer["digest"]]) if layer["digest"] in changed else layer
        for layer in content["layers"]
    ]
    document = {**content, "config": config, "layers": layers}
    return Rewritten(
        Manifest(manifest.media_type, json.dumps(document, indent=2, ensure_ascii=False).encode()),
        {digest_of(blob): blob for blob in new},
    )


def settled(statement: bytes) -> bytes:
    """Return an in-toto statement without what is of one build alone; what is no provenance, byte for byte."""
    try:
        document = parse_object(statement, "the statement")
        paths = _VOLATILE.get(document["predicateType"], ())
        removed = [_remove(document, path) for path in paths]
        if not any(removed):
            return statement
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, KeyError, TypeError):
        return statement


def _is_provenance(layer: Descriptor) -> bool:
    known = layer.get("annotations", {}).get(_PREDICATE) in _VOLATILE
    return known and layer["mediaType"] == _STATEMENT and layer["size"] <= LIMIT


def _described(descriptor: Descriptor, blob: bytes) -> Descriptor:
    return {**descriptor, "digest": digest_of(blob), "size": len(blob)}


def _with_diff_ids(config: bytes, named: Mapping[str, str]) -> bytes:
    document = parse_object(config, f"the configuration {digest_of(config)}")
    # The blobs are not compressed: what names them is also the digest of their content.
    diff_ids = [named.get(name, name) for name in document["rootfs"]["diff_ids"]]
    rootfs = {**document["rootfs"], "diff_ids": diff_ids}
    return json.dumps({**document, "rootfs": rootfs}, separators=(",", ":")).encode()


def _remove(node: Any, path: Sequence[str]) -> bool:
    """Delete what `path` names below `node` and return whether there was any."""
    head, *rest = path
    if head == _EACH:
        removed = [_remove(entry, rest) for entry in node] if isinstance(node, list) else []
        return any(removed)
    if not isinstance(node, dict) or head not in node:
        return False
    if rest:
        return _remove(node[head], rest)
    del node[head]
    return True
