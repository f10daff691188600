"""The command line of buildctl for one build.

Source: https://github.com/moby/buildkit/tree/v0.32.2/cmd/buildctl: `--opt` and `--local` take `key=value` as it is;
`--output`, `--import-cache`, `--export-cache` and `--secret` take one record of CSV.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from multiarchbuild.api.spec import CacheMode, Network, Provenance, Spec

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
) -> list[str]:
    """Return the arguments that build `context` for `platforms` and push the result by digest.

    `frontend` overrides what the Dockerfile's `# syntax=` line names: `builtin`, or an image. `sbom_generator` is the
    image that makes the SBOM, where one is asked for.
    """
    arguments = ["buildctl", "--addr", address, "build", "--progress=rawjson", "--frontend=dockerfile.v0"]
    arguments += [f"--local=context={context.folder}", f"--local=dockerfile={context.folder}"]
    arguments += [
        f"--opt={key}={value}" for key, value in _options(spec, context, platforms, frontend, sbom_generator).items()
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
    spec: Spec, context: Context, platforms: Sequence[str], frontend: str, sbom_generator: str
) -> dict[str, str]:
    build = spec.build
    options = {"filename": build.dockerfile, "platform": ",".join(platforms)}
    if build.target:
        options["target"] = build.target
    if build.network is Network.NONE:
        options["force-network-mode"] = "none"
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
        options["attest:provenance"] = f"mode={spec.attestations.provenance}"
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
    return output | {"rewrite-timestamp": "true"} if spec.reproducible else output


def _export(spec: Spec, ref: str) -> dict[str, str]:
    return {
        "type": "registry",
        "ref": ref,
        "mode": str(spec.cache.mode),
        "image-manifest": "true",
        "oci-mediatypes": "true",
        "ignore-error": "true",
    }
