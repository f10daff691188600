"""The run's ConfigMap: spec, inline files, configuration of buildkitd, CA bundle."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from multiarchbuild.api import mounts
from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.status import ParentImage
from multiarchbuild.plan.actions import EnsureInputs, KeepRecord
from multiarchbuild.plan.children import MODE_ANNOTATION, PLATFORMS_ANNOTATION, RECORD_KEY, RECORD_ROLE, ROLE_LABEL
from multiarchbuild.plan.claims import VolumeRequest, request
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.quantities import quantity

from . import builder
from .meta import metadata

_SHARES: Final = 3
"""One of so many parts of a builder's volume is for what it keeps, the others are for what it builds."""


def config_map(action: EnsureInputs, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    """Return the immutable ConfigMap that every step of the run reads."""
    inputs, contents = inputs_of(action.run_id, build, policy, action.parents)
    data = {
        mounts.INPUTS_FILE: inputs.model_dump_json(by_alias=True, exclude_none=True),
        mounts.BUILDKITD_FILE: buildkitd_toml(policy, _most_kept(build, policy)),
        **contents,
        **builder.registry_bundles(policy),
    }
    if volume := request(build, policy):
        data[mounts.BUILDKITD_VOLUME_FILE] = buildkitd_toml(policy, _most_on_volume(volume))
    if policy.ca_bundle:
        data[mounts.CA_FILE] = policy.ca_bundle
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(build, action.name, action.run_id),
        "immutable": True,
        "data": data,
    }


def record(action: KeepRecord, build: MultiArchBuild) -> dict[str, Any]:
    """Return the immutable ConfigMap with what a builder has recorded."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(
            build,
            action.name,
            action.run_id,
            labels={ROLE_LABEL: RECORD_ROLE},
            annotations={
                PLATFORMS_ANNOTATION: ",".join(map(str, action.platforms)),
                MODE_ANNOTATION: str(action.mode),
            },
        ),
        "immutable": True,
        "data": {RECORD_KEY: action.record},
    }


def inputs_of(
    run: str, build: MultiArchBuild, policy: Policy, parents: Sequence[ParentImage]
) -> tuple[Inputs, dict[str, str]]:
    """Return what the steps of a run have in common, and the contents of inline files by their keys."""
    images = {parent.name: parent.ref for parent in parents}
    inline = build.spec.source.inline
    files = {path: f"file.{number}" for number, path in enumerate(inline.files if inline else ())}
    inputs = Inputs(
        namespace=build.metadata.namespace,
        name=build.metadata.name,
        run=run,
        spec=_without_contents(build.spec).model_copy(update={"build": build.spec.build.with_parents(images)}),
        files=files,
        registries=tuple(registry.model_copy(update={"ca_bundle": ""}) for registry in policy.registries),
        frontend=policy.images.frontend,
        sbom_generator=policy.images.sbom,
        proxy=policy.proxy.variables,
        traced=policy.tracing.enabled,
        builder_id=policy.builder_id,
    )
    return inputs, {key: inline.files[path] for path, key in files.items()} if inline else {}


def buildkitd_toml(policy: Policy, most: Decimal) -> str:
    """Return the configuration of buildkitd: how registries are reached, and how many bytes it keeps after a build.

    Source: https://github.com/moby/buildkit/blob/v0.32.2/docs/buildkitd.toml.md
    """
    # By default BuildKit goes by the size and the room of the node's disk, of which this is a part.
    lines = ["[worker.oci]", "gc = true", f'maxUsedSpace = "{int(most)}"', 'reservedSpace = "0"', 'minFreeSpace = "0"']
    for number, registry in enumerate(policy.registries):
        lines.append(f"[registry.{_string(registry.host)}]")
        # Said in either case: BuildKit speaks HTTP to a loopback address unless it is told not to.
        lines.append(f"http = {'true' if registry.plain_http else 'false'}")
        if registry.mirrors:
            lines.append(f"mirrors = [{', '.join(map(_string, registry.mirrors))}]")
        if registry.ca_bundle:
            lines.append(f"ca = [{_string(f'{builder.REGISTRY_CA}/{mounts.REGISTRY_CA_FILE.format(number)}')}]")
    return "".join(f"{line}\n" for line in lines)


def _most_kept(build: MultiArchBuild, policy: Policy) -> Decimal:
    """Return the bytes that BuildKit keeps at most: the next build needs room of the same volume.

    All builders of a run read the same file: the smallest counts.
    """
    amounts = map(quantity, builder.sizes(build, policy))
    room = min((amount for amount in amounts if amount is not None), default=None)
    most = quantity(policy.kept_builders.cache)
    assert most is not None, "the policy takes quantities only"
    return most if room is None else max(min(most, room / _SHARES), Decimal(1))


def _most_on_volume(volume: VolumeRequest) -> Decimal:
    """Return the bytes that BuildKit keeps on a volume: nothing else is on it, and the next build needs room there."""
    size = quantity(volume.size)
    assert size is not None, "the policy has compared it"
    return max(size / 2, Decimal(1))


def _string(text: str) -> str:
    # A basic string of TOML knows every escape that JSON writes.
    return json.dumps(text)


def _without_contents(spec: Spec) -> Spec:
    """Return `spec` with the inline files' names only: their contents have keys of their own."""
    inline = spec.source.inline
    if inline is None:
        return spec
    named = inline.model_copy(update={"files": dict.fromkeys(inline.files, "")})
    return spec.model_copy(update={"source": spec.source.model_copy(update={"inline": named})})
