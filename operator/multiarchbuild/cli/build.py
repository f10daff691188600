"""`kubectl mab build`: a local folder becomes an artifact, the artifact and a few options a resource."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import yaml

from multiarchbuild.api.resource import GROUP, KIND, REBUILD_ANNOTATION, VERSION
from multiarchbuild.api.status import Result

from . import artifact, compose, console, registry
from .console import say, size
from .docker import Logins
from .errors import NotFoundError, UsageError
from .follow import Wanted
from .kube import Cluster
from .pack import Context, Packed, pack, source_date
from .resource import Build

_SPOOL = 64 * 1024 * 1024
"""Bytes of a tarball that stay in memory; a larger one goes to a file."""
_FOLDER_ONLY = (
    *("tag", "platform", "target", "build_arg", "label", "annotation", "build_context", "secret", "no_cache", "name"),
    *("registry_secret", "signing_secret", "signing_keyless", "provenance", "sbom", "source_repository", "plain_http"),
    *("keep_git_dir", "compression", "format", "destination"),
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be applied."""

    manifest: dict[str, Any]
    publish: Callable[[], None] = lambda: None
    """Pushes the source, and corrects its name in the manifest where the registry has it in another compression."""
    request: str | None = None
    """Value of the rebuild annotation in the manifest: a run whatever ran before."""
    named: bool = True
    """Whether the user has chosen the name; else it comes from the image."""


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Return what the command line asks for; nothing has been sent anywhere yet.

    Raises:
        UsageError: an option, a file or a folder is wrong.
    """
    prepared = _from_file(arguments) if arguments.path is None else _from_folder(arguments)
    meta = prepared.manifest["metadata"]
    own = meta.get("namespace")
    if own and arguments.namespace not in {"", own}:
        raise UsageError(f"{arguments.file} is for namespace {own}, --namespace says {arguments.namespace}")
    if arguments.namespace:
        meta["namespace"] = arguments.namespace
    return prepared


def submit(prepared: Prepared, cluster: Cluster, *, force: bool) -> Wanted:
    """Push the source, apply the resource, and return the run to follow.

    A failed run is asked for again where nothing else would start one.

    Raises:
        CliError: a registry or the API server says no.
    """
    manifest = prepared.manifest
    cluster.namespace = manifest["metadata"].setdefault("namespace", cluster.namespace)
    name = str(manifest["metadata"]["name"])
    try:
        before = Build(cluster.get(name))
    except NotFoundError:
        before = None
    if before is not None and not prepared.named:
        _check_same_image(before, manifest["spec"]["output"]["image"])
    prepared.publish()
    after = Build(cluster.apply(manifest, force=force))
    request = prepared.request
    if before is None:
        say(f"created {after.namespace}/{name}")
    elif before.generation != after.generation or request:
        say(f"updated {after.namespace}/{name}")
    elif before.run and before.run.result in {Result.FAILED, Result.CANCELLED}:
        say(f"{after.namespace}/{name} is unchanged and its last run {before.run.result}: asking for another")
        request = _now()
        cluster.annotate(name, {REBUILD_ANNOTATION: request})
    elif before.run and before.run.result:
        say(f"{after.namespace}/{name} is unchanged and built; to build it again: kubectl mab rebuild {name}")
    return Wanted(name, request=request)


def _check_same_image(before: Build, image: str) -> None:
    """Keep team-b/api from replacing the build of team-a/api, whose default name is the same."""
    other = before.spec["output"]["image"]
    if other != image:
        raise UsageError(
            f"{before.namespace}/{before.name} already builds {other}: choose another name for {image} with --name, "
            f"or pass --name {before.name} to replace it"
        )


def _from_file(arguments: argparse.Namespace) -> Prepared:
    if arguments.file is None:
        raise UsageError("name a folder to build (. for this one), or a MultiArchBuild with --file")
    if given := next((name for name in _FOLDER_ONLY if getattr(arguments, name)), None):
        raise UsageError(
            f"--{given.replace('_', '-')} is for the build of a folder: write it into {arguments.file} instead"
        )
    try:
        text = sys.stdin.read() if arguments.file == "-" else Path(arguments.file).read_text(encoding="utf-8")
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except OSError as error:
        raise UsageError(f"cannot read {arguments.file}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{arguments.file} is not YAML: {error}") from error
    if len(documents) != 1 or not _is_build(documents[0]):
        raise UsageError(f"{arguments.file} must hold one {KIND} of {GROUP}/{VERSION} with a name, and nothing else")
    return Prepared(documents[0])


def _is_build(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and (document.get("apiVersion"), document.get("kind")) == (f"{GROUP}/{VERSION}", KIND)
        and isinstance(document.get("metadata"), dict)
        and isinstance(document["metadata"].get("name"), str)
    )


def _from_folder(arguments: argparse.Namespace) -> Prepared:
    folder = Path(arguments.path)
    options = compose.Options(
        tags=arguments.tag,
        platforms=arguments.platform,
        name=arguments.name,
        dockerfile=compose.dockerfile(folder, arguments.file, Path.cwd()),
        target=arguments.target,
        args=arguments.build_arg,
        labels=arguments.label,
        annotations=arguments.annotation,
        contexts=arguments.build_context,
        secrets=arguments.secret,
        registry_secrets=arguments.registry_secret,
        signing_secret=arguments.signing_secret,
        signing_keyless=arguments.signing_keyless,
        provenance=arguments.provenance or "",
        sbom=arguments.sbom,
        compression=arguments.compression,
        format=arguments.format or "",
        destinations=arguments.destination,
        cache=not arguments.no_cache,
    )
    request = _now() if arguments.no_cache else None
    repository = arguments.source_repository or options.output[0]
    # Every option is looked at before anything is packed.
    compose.manifest(options, repository, request=request)
    context = Context.open(folder, options.dockerfile, keep_git_dir=arguments.keep_git_dir)
    time = source_date(options.environment)
    with console.stderr().status(f"packing {folder}"):
        content = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_SPOOL))  # noqa: SIM115 - read when pushed
        packed = pack(context, content, time=time)
    client = registry.client(repository, config := Logins.load(), plain_http=arguments.plain_http)
    document = compose.manifest(options, f"{client.repository}@{artifact.manifest_of(packed).digest}", request=request)

    def publish() -> None:
        with registry.explained(config), console.stderr().status(f"pushing {size(packed.size)} to {repository}"):
            digest = artifact.push(client, packed, content)
        source = document["spec"]["source"]["oci"]["image"] = f"{client.repository}@{digest}"
        say(_packed(packed, source))
        if context.leaves_git_out:
            say(".git is left out; --keep-git-dir includes it")

    return Prepared(document, publish, request, named=bool(arguments.name))


def _packed(packed: Packed, source: str) -> str:
    return f"source: {packed.files} files and folders, {size(packed.size)}, {source}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
