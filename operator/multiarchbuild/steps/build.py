"""The build step: one or more platforms with the buildkitd beside it, pushed by digest."""

import platform as machine
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from multiarchbuild.api.foreign import parse_object
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.requests import LastImage
from multiarchbuild.api.results import Built, PushedImage
from multiarchbuild.api.spec import Spec
from multiarchbuild.api.traces import build_span_id, trace_id, trace_parent
from multiarchbuild.oci.credentials import Keychain
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.index import find_image
from multiarchbuild.oci.names import Repository

from . import bases, credentials, logins, source
from .build_error import clip
from .buildctl import command
from .classify import MAX_SECRET, Builder, classify, dockerfile_is_folder, secret_too_big
from .daemon import await_daemon
from .dates import tell_apart
from .deadline import Deadline
from .errors import StepError, push_error
from .log import say
from .mounts import Mounts
from .progress import Progress
from .record import Facts, recording, store
from .registries import client, destinations, field_of
from .tail import last_lines
from .termination import tell_exporting
from .unchanged import Unchanged, compare

_CACHE_PATIENCE = 4.0
"""Seconds for the cache's registry to connect, and again to answer; BuildKit itself would wait for it without end."""
_BLOB_PATIENCE = 10.0
"""Seconds for buildkitd to hand out a manifest that it has; it takes a fiftieth of one."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Request:
    """What one build is to do."""

    platforms: tuple[str, ...]
    cache_to: str | None = None
    cache_from: tuple[str, ...] = ()
    small_ids: bool = False
    """Whether the builder's isolation knows user and group ids up to 65535 only."""
    deadline: Deadline = field(default_factory=Deadline)
    kept: bool = False
    """Whether buildkitd may have seen an earlier version of the source."""
    last: LastImage | None = None
    """What need not be built again, if nothing has changed since."""
    on_volume: bool = False
    """Whether buildkitd keeps its state on a volume that outlives the pod."""


def build(mounts: Mounts, request: Request) -> Built:
    """Build what `request` says and return the digest that was pushed.

    Raises:
        StepError: the source, the Dockerfile, a registry or the builder does not let it, or it takes too long.
    """
    if request.last is not None and (published := _published(mounts, request.last, request.platforms)) is not None:
        return published
    began = time.monotonic()
    spec = mounts.inputs.spec
    keychain = credentials.registry_keychain(mounts)
    secrets, ssh_key = credentials.build_secrets(mounts), credentials.ssh_key(mounts)
    for name, file in secrets:
        if (size := file.stat().st_size) > MAX_SECRET:
            raise StepError(Reason.SECRET_INVALID, secret_too_big(spec, name, size))
    with ThreadPoolExecutor(3) as threads:
        # All of it goes on while the builder starts; what the user has to mend is known before anything is built.
        pushable = threads.submit(_check_push, mounts, keychain)
        caches = threads.submit(
            _usable_caches, mounts, keychain, [*request.cache_from, *filter(None, [request.cache_to])]
        )
        relayed = threads.submit(logins.with_token_server, mounts, keychain)
        context = source.prepare(mounts, meanwhile=lambda: pushable.result() if pushable.done() else None)
        if request.kept:
            tell_apart(context.folder)
        _check_dockerfile(context.folder, spec.build.dockerfile)
        pushable.result()
        usable, by_token = caches.result(), relayed.result()
    conflicts = {ref: logins.conflicting_cache(mounts, keychain, ref, by_token) for ref in sorted(usable)}
    usable = {ref for ref in usable if not conflicts[ref]}
    for conflict in filter(None, dict.fromkeys(conflicts.values())):
        say(conflict)
    await_daemon(mounts.socket, on_volume=request.on_volume)
    metadata_file = mounts.work / "metadata.json"
    arguments = command(
        spec,
        context,
        request.platforms,
        address=f"unix://{mounts.socket}",
        metadata_file=metadata_file,
        cache_to=request.cache_to if request.cache_to in usable else None,
        cache_from=[ref for ref in request.cache_from if ref in usable],
        secrets=secrets,
        ssh_key=ssh_key,
        frontend=mounts.inputs.frontend,
        sbom_generator=mounts.inputs.sbom_generator,
        proxy=mounts.inputs.proxy,
    )
    repositories = [Repository.parse(name) for name in (spec.output.image, *usable)]
    only = str(Platform.parse(request.platforms[0])) if len(request.platforms) == 1 else ""
    progress = Progress(only)
    facts = Facts(spec, request.platforms, warm=mounts.handed is not None, began=began, ready=time.monotonic())
    with recording(progress, facts):
        with logins.environment(mounts, keychain, repositories, by_token) as env:
            _run(arguments, {**env, **_traced(mounts, request.platforms)}, progress, request.deadline)
        facts.ended = time.monotonic()
        wrong = _wrong_base(mounts, keychain, progress, request.platforms)
        if not metadata_file.is_file():
            generator = mounts.inputs.sbom_generator
            builder = Builder(
                request.platforms, _architecture(), generator, request.small_ids, str(wrong or ""), request.on_volume
            )
            raise classify(spec, progress, builder)
        if wrong is not None:
            raise StepError(Reason.BASE_IMAGE_NOT_FOUND, f"{wrong}.")
    digest = parse_object(metadata_file.read_bytes(), "buildctl's metadata", largest=None)["containerimage.digest"]
    say(f"{progress.cache.hits} of {progress.cache.total} steps were cached")
    with ThreadPoolExecutor(1) as threads:
        stored = threads.submit(store, mounts, keychain, facts.record(progress))
        images = _images(mounts, keychain, digest, request.platforms)
    return Built(
        digest=digest,
        images=images,
        cache=progress.cache,
        record=stored.result(),
        source_time=context.time if context.vcs else None,
        warnings=tuple(
            dict.fromkeys([*filter(None, conflicts.values()), *(warning.text for warning in progress.warnings)])
        ),
        bases=_moving(spec, context.folder, progress, request.platforms),
    )


def _published(mounts: Mounts, last: LastImage, platforms: tuple[str, ...]) -> Built | None:
    """Return what is published already, where a build would make it again."""
    came = compare(mounts, last, source.pinned(mounts), platforms)
    return Built(digest=last.digest, images=came.images, unchanged=True) if isinstance(came, Unchanged) else None


def _moving(spec: Spec, folder: Path, progress: Progress, platforms: Sequence[str]) -> tuple[str, ...]:
    """Return the base images that may be others tomorrow, for rebuild.onBaseImage."""
    try:
        dockerfile = (folder / spec.build.dockerfile).read_text(errors="replace")
    except OSError:  # such as one that is called dockerfile: then a digest in it is asked for in vain
        dockerfile = ""
    pins = "\n".join((dockerfile, *spec.build.args.values(), *spec.build.contexts.values()))
    return bases.moving(bases.pulled(progress, [Platform.parse(name) for name in platforms]), pins)


def _images(mounts: Mounts, keychain: Keychain, digest: str, platforms: Sequence[str]) -> tuple[PushedImage, ...]:
    """Return the image of each platform in what was pushed: people are shown these, not BuildKit's index over each.

    The publish step looks them up again, with retries: a registry that does not answer now is no failure of the build.
    """
    image = mounts.inputs.spec.output.image
    try:
        pushed = client(mounts, keychain, image).get(digest)
        found = [(name, find_image(pushed, Platform.parse(name)).descriptor["digest"]) for name in platforms]
    except (RegistryError, ValueError, KeyError) as error:
        say(f"pushed {image}@{digest}, which cannot be read yet: {error}")
        return ()
    for name, own in found:
        say(f"pushed {name}: {image}@{own}")
    return tuple(PushedImage(platform=name, digest=own) for name, own in found)


def _check_dockerfile(context: Path, name: str) -> None:
    if (context / name).is_dir():
        raise StepError(Reason.DOCKERFILE_NOT_FOUND, dockerfile_is_folder(name))


def _check_push(mounts: Mounts, keychain: Keychain) -> None:
    for registry in (client(mounts, keychain, mounts.inputs.spec.output.image), *destinations(mounts)):
        try:
            registry.check_push()
        except RegistryError as error:
            raise push_error(error, str(registry.repository), field_of(mounts, registry)) from error


def _usable_caches(mounts: Mounts, keychain: Keychain, refs: Sequence[str]) -> set[str]:
    """Return those of `refs` whose registry answers: no failure of a cache is one of the build."""
    image = Repository.parse(mounts.inputs.spec.output.image)
    answers = {image.registry: True}
    for ref in refs:
        registry = Repository.parse(ref).registry
        if registry not in answers:
            try:
                client(mounts, keychain, ref, connect=_CACHE_PATIENCE, read=_CACHE_PATIENCE).check_reachable()
                answers[registry] = True
            except RegistryError as error:
                answers[registry] = False
                say(f"building without the cache at {registry}: {error}")
    return {ref for ref in refs if answers[Repository.parse(ref).registry]}


def _run(arguments: Sequence[str], env: Mapping[str, str], progress: Progress, deadline: Deadline) -> None:
    """Run buildctl and print its log as it comes; tell the operator when all is built and is being pushed.

    Raises:
        StepError: it was not done at the deadline.
    """
    with subprocess.Popen(
        arguments, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        timer = threading.Timer(deadline.seconds or 0, process.kill)
        if deadline.at is not None:
            timer.start()
        try:
            told = False
            for line in process.stderr:
                for shown in progress.feed(line.rstrip("\n")):
                    say(shown)
                if progress.exporting and not told:
                    told = True
                    tell_exporting()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
    if deadline.seconds == 0:
        raise _timed_out(progress)


def _traced(mounts: Mounts, platforms: Sequence[str]) -> dict[str, str]:
    """Return what tells buildctl which trace its build is a part of."""
    inputs = mounts.inputs
    if not inputs.traced:
        return {}
    trace = trace_id(inputs.namespace, inputs.name, inputs.run)
    return {"TRACEPARENT": trace_parent(trace, build_span_id(trace, platforms))}


def _timed_out(progress: Progress) -> StepError:
    """Return how the step fails whose build was not done in time: with the step that went on longest, and its end."""
    running = progress.running
    if not running:
        return StepError(Reason.TIMED_OUT, "The build did not finish in time; no step was running. Raise spec.timeout.")
    first, *others = running
    beside = f" (and {len(others)} more)" if others else ""
    return StepError(
        Reason.TIMED_OUT,
        f"{clip(first.name, 160)}{beside} was still running when the run timed out: its last lines are in "
        "logTail. Raise spec.timeout if it only needs longer; a step that waits for input, or for a process that never "
        "ends, needs another Dockerfile.",
        "\n".join(last_lines(first.last_lines)),
    )


def _wrong_base(
    mounts: Mounts, keychain: Keychain, progress: Progress, platforms: Sequence[str]
) -> bases.WrongBase | None:
    targets = [Platform.parse(name) for name in platforms]
    images = list(bases.pulled(progress, targets))
    for image in images:
        if image.explicit:
            say(
                f"{image.image} is used for {image.platforms[0]}, as the Dockerfile says, in a build for {platforms[0]}"
            )

    def manifest(name: str) -> bytes | None:
        try:
            return client(mounts, keychain, name).resolve(_tag(name)).raw
        except RegistryError as error:
            say(f"cannot tell which platforms {name} is for: {error}")
            return None

    return bases.wrong_base(images, lambda digest: _blob(mounts, digest), manifest)


def _tag(name: str) -> str:
    return name.rpartition("/")[2].partition(":")[2] or "latest"


def _blob(mounts: Mounts, digest: str) -> bytes | None:
    """Return a small blob of buildkitd's content store, or None where it does not have it."""
    command_ = ["buildctl", "--addr", f"unix://{mounts.socket}", "debug", "get", digest]
    try:
        found = subprocess.run(command_, capture_output=True, check=False, timeout=_BLOB_PATIENCE)
    except subprocess.TimeoutExpired:
        return None
    return found.stdout if found.returncode == 0 else None


def _architecture() -> str:
    """Return the architecture of this node, as platforms name it."""
    return _ARCHITECTURES.get(machine.machine(), machine.machine())
