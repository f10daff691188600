"""The run's ConfigMap: spec, inline files, configuration of buildkitd, CA bundle."""

import json
from typing import Any

from multiarchbuild.api import mounts
from multiarchbuild.api.inputs import Inputs, Registry
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.spec import Spec
from multiarchbuild.plan.actions import EnsureInputs
from multiarchbuild.plan.policy import Policy

from . import builder
from .meta import metadata


def config_map(action: EnsureInputs, build: MultiArchBuild, policy: Policy) -> dict[str, Any]:
    """Return the immutable ConfigMap that every step of the run reads."""
    inline = build.spec.source.inline
    contents = dict(inline.files) if inline else {}
    files = {path: f"file.{number}" for number, path in enumerate(contents)}
    inputs = Inputs(
        namespace=build.metadata.namespace,
        name=build.metadata.name,
        run=action.run_id,
        spec=_without_contents(build.spec),
        files=files,
        registries=tuple(registry.model_copy(update={"ca_bundle": ""}) for registry in policy.registries),
        frontend=policy.images.frontend,
        sbom_generator=policy.images.sbom,
    )
    data = {
        mounts.INPUTS_FILE: inputs.model_dump_json(by_alias=True, exclude_none=True),
        mounts.BUILDKITD_FILE: buildkitd_toml(policy.registries),
        **{key: contents[path] for path, key in files.items()},
        **builder.registry_bundles(policy),
    }
    if policy.ca_bundle:
        data[mounts.CA_FILE] = policy.ca_bundle
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(build, action.name, action.run_id),
        "immutable": True,
        "data": data,
    }


def buildkitd_toml(registries: tuple[Registry, ...]) -> str:
    """Return the configuration of buildkitd: how `registries` are reached.

    Source: https://github.com/moby/buildkit/blob/v0.32.2/docs/buildkitd.toml.md
    """
    lines = []
    for number, registry in enumerate(registries):
        lines.append(f"[registry.{_string(registry.host)}]")
        # Said in either case: BuildKit speaks HTTP to a loopback address unless it is told not to.
        lines.append(f"http = {'true' if registry.plain_http else 'false'}")
        if registry.mirrors:
            lines.append(f"mirrors = [{', '.join(map(_string, registry.mirrors))}]")
        if registry.ca_bundle:
            lines.append(f"ca = [{_string(f'{builder.REGISTRY_CA}/{mounts.REGISTRY_CA_FILE.format(number)}')}]")
    return "".join(f"{line}\n" for line in lines)


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
