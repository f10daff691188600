"""The command line of buildctl for one build.

Source: https://github.com/moby/buildkit/tree/v0.32.2/cmd/buildctl: `--opt` and `--local` take `key=value` as it is;
`--output`, `--import-cache`, `--export-cache` and `--secret` take one record of CSV.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from multiarchbuild.api.formats import Format
from multiarchbuild.api.provenance import Provenance
from multiarchbuild.api.spec import CacheMode, Network, Spec

from .source import Context

BUILTIN = "builtin"
"""Frontend of BuildKit itself: nothing is pulled for it."""
_SYNTAX = "build-arg:BUILDKIT_SYNTAX"


def command(
    spec: Spec,
    context: Context,
    platforms: Sequence[str],
    *,
    address: str,
    metadata_file: Path,
    cache_to: str | None,
    cache_from: Iterable[str],
    secrets: Iterable[tuple[str, Path]],
    ssh_key: Path | None,
    frontend: str = "",
    sbom_generator: str = "",
    proxy: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Return the arguments that build `context` for `platforms` and push the result by digest.

    `frontend` overrides what the Dockerfile's `# syntax=` line names: `builtin`, or an image. `sbom_generator` is the
    image that makes the SBOM, where one is asked for. `proxy` has the variables of a proxy.
    """
    arguments = ["buildctl", "--addr", address, "build", "--progress=rawjson", "--frontend=dockerfile.v0"]
    arguments += [f"--local=context={context.folder}", f"--local=dockerfile={context.folder}"]
    arguments += [
        f"--opt={key}={value}"
        for key, value in _options(spec, context, platforms, frontend, sbom_generator, proxy).items()
    ]
    arguments += [f"--metadata-file={metadata_file}", f"--output={record(_output(spec))}"]
    arguments += [f"--import-cache={record({'type': 'registry', 'ref': ref})}" for ref in cache_from]
    if cache_to and spec.cache.mode is not CacheMode.DISABLED:
        arguments.append(f"--export-cache={record(_export(spec, cache_to))}")
    arguments += [f"--secret={record({'id': name, 'src': str(file)})}" for name, file in secrets]
    if ssh_key:
        arguments.append(f"--ssh=default={ssh_key}")
    return arguments


def record(fields: dict[str, str]) -> str:
    """Return `fields` as one record of CSV (RFC 4180), as github.com/tonistiigi/go-csvvalue reads it."""
    return ",".join(_quote(f"{key}={value}") for key, value in fields.items())


def _quote(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if any(mark in field for mark in ',"\r\n ') else field


def _options(
    spec: Spec,
    context: Context,
    platforms: Sequence[str],
    frontend: str,
    sbom_generator: str,
    proxy: Mapping[str, str],
) -> dict[str, str]:
    build = spec.build
    # With the platform in the names of steps also where there is one: a stage may be `FROM --platform=…` another.
    options = {"filename": build.dockerfile, "platform": ",".join(platforms), "multi-platform": "true"}
    if build.target:
        options["target"] = build.target
    if not spec.cache.import_:
        # Of every stage, also where this buildkitd has built it before.
        options["no-cache"] = ""
    if build.network is Network.NONE:
        options["force-network-mode"] = "none"
    # Predefined arguments, which BuildKit hands to RUNs and keeps out of cache keys and of the image. Those of the
    # build go first in either spelling: of two that differ in case only, BuildKit takes the later one.
    own = {name.lower() for name in build.args}
    options |= {f"build-arg:{name}": value for name, value in proxy.items() if name.lower() not in own}
    options |= {f"build-arg:{name}": value for name, value in build.args.items()}
    if frontend == BUILTIN:
        # The frontend takes this for the sign that a `# syntax=` line has been followed already.
        options["cmdline"] = BUILTIN
        options.pop(_SYNTAX, None)
    elif frontend:
        options[_SYNTAX] = frontend
    options |= {f"label:{name}": value for name, value in build.labels.items()}
    options |= {f"context:{name}": value for name, value in build.contexts.items()}
    if spec.attestations.provenance is not Provenance.DISABLED:
        options["attest:provenance"] = f"mode={spec.attestations.provenance.lower()}"
    if spec.attestations.sbom:
        options["attest:sbom"] = record({"generator": sbom_generator})
    if spec.reproducible:
        options["build-arg:SOURCE_DATE_EPOCH"] = str(context.time)
    if context.vcs:
        options["vcs:source"], options["vcs:revision"] = context.vcs
    return options


def _output(spec: Spec) -> dict[str, str]:
    output = {
        "type": "image",
        "name": spec.output.image,
        "push": "true",
        "push-by-digest": "true",
        "oci-mediatypes": "true",
    }
    if spec.reproducible:
        output["rewrite-timestamp"] = "true"
    if spec.output.format is Format.MANIFEST:
        # Elsewhere they are those of the index, which publish makes.
        output |= {f"annotation.{name}": value for name, value in spec.output.annotations.items()}
    return output | _compression(spec)


def _compression(spec: Spec) -> dict[str, str]:
    """Return how layers are compressed: image and cache alike, as BuildKit makes a blob for each way.

    Zstd and eStargz need `oci-mediatypes`, which is always set.
    """
    wanted = spec.output.compression
    if wanted is None:
        return {}
    fields = {"compression": str(wanted.type).lower()}
    if wanted.level is not None:
        fields["compression-level"] = str(wanted.level)
    if wanted.force:
        fields["force-compression"] = "true"
    return fields


def _export(spec: Spec, ref: str) -> dict[str, str]:
    return {
        "type": "registry",
        "ref": ref,
        "mode": spec.cache.mode.lower(),
        "image-manifest": "true",
        "oci-mediatypes": "true",
        "ignore-error": "true",
        **_compression(spec),
    }
