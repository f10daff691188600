"""Why a build failed, from the chain of errors of BuildKit 0.32.2. `tests/unit/steps/buildctl/` has real ones.

Nothing in here looks at what a `RUN` printed, with one exception: that a program cannot be executed is told by the
runtime in the log of the step. It counts where platforms say the same: that of the step is not that of the node.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import Spec
from multiarchbuild.oci.names import Repository

from .build_error import BuildError, clip
from .errors import FOR_REGISTRY, StepError, certificate_error
from .progress import Progress
from .tail import log_tail

_STEP_NAME = 160
"""Characters of the name of a step in a message: it holds all of its RUN."""
_KILLED = 137
"""128 + SIGKILL."""

# The Dockerfile and what the frontend makes of it.
_NO_DOCKERFILE = re.compile(r"^failed to read dockerfile: open (?P<path>.*): no such file or directory$")
_NO_FILE = re.compile(r"^failed to read dockerfile: .*(?:is a directory|is not a regular file|not a directory)$")
_NO_TARGET = re.compile(r'^target stage "(?P<target>[^"]*)" could not be found(?P<guess> \(did you mean .*\?\))?$')
_LINT = re.compile(r"^lint violation found for rules: (?P<rules>[\w, ]+)$")
_ENTITLEMENT = re.compile(r"(?:^|: )(?P<what>security\.insecure|network\.host|device \S+) is not allowed$")
_TOO_BIG = re.compile(r"^secret (?P<id>\S+) too big\. max size (?P<size>.*)$")
_NO_SECRET = re.compile(r"^secret (?P<id>\S+): not found$")
_NO_SSH = re.compile(r'^no SSH key "[^"]*" forwarded from the client$')
_BAD_SSH = re.compile(r"^failed to convert agent config \{")
_MISSING_FILE = re.compile(
    r'^(?:failed to compute cache key: )?(?:failed to calculate checksum of ref \S+|lstat): ?"?(?P<path>/[^":]*)"?: '
    r"(?:not found|no such file or directory)$"
)
_OWNER = re.compile(r"[Cc]hown ")
_NO_OWNER = re.compile(r": invalid argument\b")

# Images and registries.
_PULLS = re.compile(
    r"^(?:\[(?:[^\]]* )?internal\] load metadata for |\[context [^\]]+\] (?:load metadata for )?|"
    r"resolve image config for docker-image://|docker-image://|\[(?:[^\]]*[^\]\d])?\d+/\d+\] FROM )(?P<image>\S+)"
)
_FRONTEND = re.compile(r"^(?:resolve image config for )?docker-image://(?P<image>\S+)")
_SBOM = re.compile(
    r"^(?:resolve image config for docker-image://|docker-image://|\[[^\]]*\] generating sbom using )(?P<image>\S+)"
)
_NO_PLATFORM = re.compile(r"(?:^|: )no match for platform in manifest(?: \S+)?: not found\b")
_FAILED_PUSH = re.compile(r"^failed to push (?P<image>\S+): ")
_ADDED = re.compile(r"^\[[^\]]*\] ADD (?:--\S+ )*(?P<url>(?:https?|git|ssh)://\S+|git@\S+)")
_GIT_NO_ANSWER = re.compile(
    r"Could not resolve host|Failed to connect|Connection (?:refused|reset|timed out)|returned error: (?:429|5\d\d)\b"
)
"""What git says of a server; no RUN can be in what is said of an ADD."""
_ANSWERED = re.compile(r"^(?:failed to load cache key: )?invalid response status (?P<code>\d{3})\b")
_STATUS = re.compile(
    r"unexpected status (?:from [A-Z]+ request to \S+|code \S+|from \S+)?: ?(?P<code>\d{3})\b", re.MULTILINE
)
_CODE = re.compile(
    r"(?:^|: )(?P<code>denied|unauthorized|toomanyrequests|unavailable|insufficient_scope|"
    r"pull access denied, repository does not exist)\b",
    re.MULTILINE,
)
"""Codes of errors of the OCI Distribution Specification, and UNAVAILABLE of distribution, lower case as BuildKit has
them."""
_TOKEN = re.compile(
    r"(?:^|: )(?:failed to authorize|failed to fetch (?:anonymous|oauth) token|no basic auth credentials)\b"
)
_NOT_FOUND = re.compile(r": not found(?: \(did you mean .*\?\))?$")
_NO_ANSWER = re.compile(
    r"(?:^|: )(?:failed to do request: |dial (?:tcp|udp) |read tcp |write tcp |net/http: |tls: |x509: |lookup \S+ on |"
    r"http: server gave HTTP response|(?:Get|Head|Post|Put) \")|: (?:unexpected )?EOF$|"
    r": context deadline exceeded$|i/o timeout$|connection reset by peer$"
)

_LAYER = re.compile(r"(?:^|: )failed to copy: httpReadSeeker: ")
"""What a step says that needs a layer of an image or of the cache: BuildKit fetches it as late as that."""

# What carries a build.
_DAEMON_LOST = re.compile(
    r"^failed to (?:receive status|get status|dial)|(?:^|: )failed to list workers: |rpc error: code = Unavailable|"
    r"^no active session|: no active session for |error reading from server: EOF|transport is closing|^context canceled"
)
_DISK_FULL = re.compile(r"(?:^|: )no space left on device$|: disk quota exceeded$")
_NOT_PERMITTED = re.compile(r"(?:^|: )(?:operation not permitted|permission denied)$")
_MOUNTING = re.compile(
    r"^(?:failed to (?:mount|prepare|create)|error (?:mounting|creating)|mount callback failed)|: failed to mount "
)
_RUNTIME_REFUSED = re.compile(
    r"^(?:time=\S+ level=error msg=\")?runc run failed: unable to start container process: "
    r".*(?:operation not permitted|permission denied)"
)
_NOT_EXECUTABLE = re.compile(r"^(?:time=\S+ level=error msg=\")?(?:runc run failed: .*|exec \S+): exec format error\b")


@dataclass(frozen=True, slots=True)
class Builder:
    """What builds, as far as a failure depends on it."""

    platforms: tuple[str, ...] = ()
    """What is built."""
    machine: str = ""
    """Architecture of the node, as platforms name it; empty where it is not known."""
    sbom_generator: str = ""
    """Image that makes SBOMs."""
    small_ids: bool = False
    """Whether its isolation knows user and group ids up to 65535 only."""
    wrong_base: str = ""
    """What is wrong with the platform of an image that the build took, or empty."""
    on_volume: bool = False
    """Whether buildkitd keeps its state on a volume that outlives the pod."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """A build that failed."""

    spec: Spec
    error: BuildError
    builder: Builder

    @property
    def step(self) -> str:
        """The name of the step that failed, or the line of the Dockerfile that is shown, short enough for a message."""
        return clip(self.error.name or self.error.instruction, _STEP_NAME)

    @property
    def said(self) -> str:
        return self.error.words


class _Found(NamedTuple):
    reason: Reason
    message: str


def classify(spec: Spec, progress: Progress, builder: Builder = Builder()) -> StepError:
    """Return how the build step fails whose buildctl ended with an error."""
    failed = _Failed(spec, BuildError.of(progress), builder)
    reason, message = next(filter(None, (check(failed) for check in _CHECKS)), None) or _other(failed)
    return StepError(reason, message, log_tail(failed.error))


# --- Processes: nothing but how they ended is looked at.


def _process(failed: _Failed) -> _Found | None:
    error = failed.error
    if not error.is_process:
        return None
    if generator := _sbom_image(failed):
        return _Found(
            Reason.SBOM_GENERATOR_FAILED,
            f"{_generator(generator)} failed with exit code {error.exit_code}: its last lines are in logTail. "
            f"{_WITHOUT_SBOM}",
        )
    if error.out_of_memory or error.exit_code == _KILLED:
        how = "ran out of memory" if error.out_of_memory else "was killed, most likely because memory ran out"
        return _Found(
            Reason.OUT_OF_MEMORY,
            f"{failed.step} {how}: raise scheduling.resources.limits.memory, which the container buildkitd and every "
            "RUN in it share, or let the step use less.",
        )
    return _not_executable(failed) or _runtime(failed) or _exited(failed)


def _not_executable(failed: _Failed) -> _Found | None:
    vertex, machine = failed.error.step, failed.builder.machine
    if vertex is None or not machine or not _only_line(failed, _NOT_EXECUTABLE):
        return None
    if failed.builder.wrong_base:
        return _Found(Reason.BASE_IMAGE_NOT_FOUND, f"{failed.step} cannot run: {failed.builder.wrong_base}.")
    # A stage FROM scratch has no platform in its name: it is what is built.
    platforms = [vertex.platform] if vertex.platform else failed.builder.platforms
    foreign = next((each for each in platforms if _architecture(each) != machine), None)
    if foreign is None:
        return None
    return _Found(
        Reason.BUILDER_UNSUPPORTED,
        f"{failed.step} cannot run on this node: exec format error. A program for {foreign} needs QEMU on a node of "
        f"{machine}: use a native node, or label a node that has QEMU in binfmt_misc with "
        f"multiarch.build/qemu-{_architecture(foreign)}=true.",
    )


def _runtime(failed: _Failed) -> _Found | None:
    """Say that the node lets BuildKit run nothing: runc's own words are all that the step printed, and none has run."""
    ran = any(
        vertex.completed and not vertex.error and not vertex.cached and " RUN " in vertex.name
        for vertex in failed.error.progress.vertexes.values()
    )
    if ran or not _only_line(failed, _RUNTIME_REFUSED):
        return None
    return _refused_by_node("see logTail")


def _only_line(failed: _Failed, pattern: re.Pattern[str]) -> bool:
    lines = failed.error.step.last_lines if failed.error.step else []
    return len(lines) == 1 and pattern.match(lines[0]) is not None


def _exited(failed: _Failed) -> _Found:
    code = failed.error.exit_code
    how = f"failed with exit code {code}" if code is not None else f"failed: {failed.said}"
    return _Found(Reason.BUILD_FAILED, f"{failed.step} {how}: its last lines are in logTail.{_about_ids(failed)}")


_OWNERS = re.compile(
    r"\b(?:chown|chgrp|install|useradd|usermod|adduser|groupadd|groupmod|addgroup|setpriv|su-exec|gosu|tar)\b[^;&|\n]*"
)
"""A command that gives files or processes to users and groups, with its arguments."""
_ID = re.compile(r"\b\d{5,10}\b")


def _about_ids(failed: _Failed) -> str:
    """Return a hint where a step gives files to an id that the isolation does not know: the kernel only says EINVAL."""
    named = [int(digits) for command in _OWNERS.findall(failed.error.name) for digits in _ID.findall(command)]
    large = next((each for each in named if 65535 < each < 2**32), None)  # noqa: PLR2004 - ids are 32 bits
    if not failed.builder.small_ids or large is None:
        return ""
    return (
        f" If {large} is a user or group id: ids above 65535 need isolation Privileged in the operator's policy, as "
        "the user namespace of a builder has no others."
    )


# --- The input: all of it is final.


def _dockerfile(failed: _Failed) -> _Found | None:
    text, path = failed.error.text, failed.spec.build.dockerfile
    if match := _NO_DOCKERFILE.match(text):
        return _Found(Reason.DOCKERFILE_NOT_FOUND, no_dockerfile(failed.spec, match["path"]))
    if _NO_FILE.match(text):
        return _Found(Reason.DOCKERFILE_NOT_FOUND, dockerfile_is_folder(path))
    if match := _NO_TARGET.match(text):
        guess = match["guess"] or ""
        return _Found(Reason.TARGET_NOT_FOUND, f"{path} has no stage {match['target']!r}{guess}: correct build.target.")
    if match := _LINT.match(text):
        rules = {rule.strip() for rule in match["rules"].split(",")}
        found = [each.text for each in failed.error.progress.warnings if each.rule in rules]
        what = "; ".join(found) or match["rules"]
        return _Found(
            Reason.DOCKERFILE_INVALID,
            f"{path} fails its checks, which its `# check=error=true` makes errors: {what}. Correct it, or name the "
            "rule in `# check=skip=RULE;error=true`.",
        )
    if match := _ENTITLEMENT.search(text):
        return _Found(
            Reason.DOCKERFILE_INVALID,
            f"{path} asks for {match['what']}, which builders do not grant: remove `RUN --security=insecure`, `RUN "
            "--network=host` or `RUN --device` from it.",
        )
    return None


def no_dockerfile(spec: Spec, path: str) -> str:
    """Return what to say where the source has no file `path`."""
    kind = next((kind for kind in ("git", "http", "oci", "flux") if getattr(spec.source, kind)), None)
    remedy = f" or source.{kind}.subdirectory" if kind else ", or add it to source.inline.files"
    return f"The source has no file {path!r}: correct build.dockerfile{remedy}."


def dockerfile_is_folder(path: str) -> str:
    """Return what to say where the source has a folder in the place of the Dockerfile."""
    return f"{path!r} is a folder in the source: build.dockerfile names a file, such as {f'{path}/Dockerfile'!r}."


def _secrets(failed: _Failed) -> _Found | None:
    error = failed.error
    if match := _TOO_BIG.match(error.text):
        return _Found(Reason.SECRET_INVALID, secret_too_big(failed.spec, match["id"]))
    if match := _NO_SECRET.match(error.cause):
        return _Found(
            Reason.SECRET_NOT_FOUND,
            f"{failed.step} needs a secret with id {match['id']!r}: add it to build.secrets.",
        )
    if _NO_SSH.match(error.cause):
        return _Found(
            Reason.SECRET_NOT_FOUND, f"{failed.step} needs an SSH key: name its Secret in build.ssh.secretRef."
        )
    if _BAD_SSH.match(error.text):
        return _Found(
            Reason.SECRET_INVALID,
            "The key in the Secret of build.ssh cannot be used: it must be a private key without a passphrase.",
        )
    return None


def secret_too_big(spec: Spec, name: str, size: int | None = None) -> str:
    """Return what to say of the secret with id `name`, of `size` bytes if that is known."""
    secret = next((each.secret_key_ref.name for each in spec.build.secrets if each.id == name), "")
    has = f" has {size} bytes and" if size is not None else ""
    return (
        f"The Secret {secret!r} of build.secrets (id {name!r}){has} is too large: BuildKit takes at most "
        f"{MAX_SECRET} bytes for a secret. Split it over several ids, or put what is not secret into the source."
    )


MAX_SECRET = 500 << 10
"""Bytes of a secret that BuildKit takes (session/secrets/secretsprovider/store.go, MaxSecretSize)."""


def _file(failed: _Failed) -> _Found | None:
    if match := _MISSING_FILE.match(failed.error.cause):
        return _Found(
            Reason.BUILD_FAILED,
            f"{failed.step} failed: the source has no {match['path']!r} (a .dockerignore may leave it out).",
        )
    if any(_refuses_owner(line) for line in failed.error.cause.split("\n")):
        return _Found(
            Reason.BUILD_FAILED,
            f"{failed.step} failed: {failed.said}. User and group ids above 65535 need isolation Privileged in the "
            "operator's policy.",
        )
    return None


def _refuses_owner(line: str) -> bool:
    chown = _OWNER.search(line)
    return chown is not None and _NO_OWNER.search(line, chown.end()) is not None


# --- Registries and other servers.


class _Answer(Enum):
    """What a server did."""

    DENIED = auto()
    NOT_FOUND = auto()
    REFUSED = auto()
    """A status of 400 and above that no retry changes."""
    FAILED = auto()
    """429, or 500 and above."""
    NONE = auto()
    """It did not answer."""


def _answer(error: BuildError) -> _Answer | None:
    """Return what a server did, or None where the error is not about one."""
    cause = error.cause
    status = _STATUS.search(cause) or _ANSWERED.match(cause)
    if status:
        return _by_status(int(status["code"]))
    if code := _CODE.search(cause):
        return _Answer.FAILED if code["code"] in {"toomanyrequests", "unavailable"} else _Answer.DENIED
    if _NO_ANSWER.search(cause):
        return _Answer.NONE
    if _TOKEN.search(cause):
        return _Answer.DENIED
    return _Answer.NOT_FOUND if _NOT_FOUND.search(error.text) else None


def _by_status(code: int) -> _Answer:
    match code:
        case 401 | 403 | 407:
            return _Answer.DENIED
        case 404 | 410:
            return _Answer.NOT_FOUND
        case 408 | 425 | 429:
            return _Answer.FAILED
        case _:
            return _Answer.FAILED if code >= 500 else _Answer.REFUSED  # noqa: PLR2004 - RFC 9110, 15.6


def _certificate(failed: _Failed) -> _Found | None:
    if failed.error.is_process or _answer(failed.error) is not _Answer.NONE:
        return None
    error = certificate_error(failed.said, FOR_REGISTRY, doing=f"{failed.step or 'Building'} failed: ")
    return _Found(error.reason, error.message) if error else None


def _not_pulled(failed: _Failed, reason: Reason, message: str) -> _Found:
    """Tell of an image that building needs and that cannot be pulled: `reason`, unless its registry is what failed."""
    match _answer(failed.error):
        case _Answer.NONE:
            return _Found(Reason.REGISTRY_UNREACHABLE, message)
        case _Answer.FAILED:
            return _Found(Reason.REGISTRY_ERROR, message)
        case _:
            return _Found(reason, message)


_WITHOUT_SBOM = "attestations.sbom: false builds without an SBOM."


def _generator(image: str) -> str:
    return f"The SBOM generator {image}, which the operator's policy names in images.sbom,"


def _sbom_image(failed: _Failed) -> str | None:
    """Return the image that makes the SBOM, if the step that failed is about it."""
    match, generator = _SBOM.match(failed.error.name), failed.builder.sbom_generator
    if not match or not generator or not failed.spec.attestations.sbom:
        return None
    return match["image"] if Repository.parse(match["image"]) == Repository.parse(generator) else None


def _sbom(failed: _Failed) -> _Found | None:
    image = _sbom_image(failed)
    if image is None:
        return None
    message = (
        f"{_generator(image)} cannot be pulled: {failed.said}. Let the policy name an image that can be pulled here; "
        f"{_WITHOUT_SBOM}"
    )
    return _not_pulled(failed, Reason.SBOM_GENERATOR_FAILED, message)


def _push(failed: _Failed) -> _Found | None:
    image, error = failed.spec.output.image, failed.error
    if not _FAILED_PUSH.match(error.cause) and error.name != "exporting to image":
        return None
    match _answer(error):
        case _Answer.DENIED:
            return _Found(
                Reason.PUSH_DENIED,
                f"Pushing to {image} was denied: {failed.said}. Name a Secret in output.secretRefs whose credentials "
                "may pull from this repository and push to it, or give output.identity the rights.",
            )
        case _Answer.NOT_FOUND:
            return _Found(
                Reason.PUSH_DENIED,
                f"{image} does not exist ({failed.said}): create the repository, or correct output.image.",
            )
        case _Answer.NONE:
            return _Found(Reason.REGISTRY_UNREACHABLE, f"Pushing to {image} failed: {failed.said}.")
        case _Answer.REFUSED:
            return _Found(
                Reason.REGISTRY_REFUSED,
                f"Pushing to {image} was refused: {failed.said}. Another try would be refused too: correct "
                "output.image, or what the registry allows (a proxy, a read-only repository, a size limit).",
            )
        case _ if _FAILED_PUSH.match(error.cause):
            return _Found(Reason.REGISTRY_ERROR, f"Pushing to {image} failed: {failed.said}.")
        case _:
            return None


def _frontend(failed: _Failed) -> _Found | None:
    """Say of the image of a `# syntax=` line what it is: few know that building needs it."""
    match = _FRONTEND.match(failed.error.name)
    if not match:
        return None
    message = (
        f"The frontend {match['image']}, which the `# syntax=` line of the Dockerfile names, cannot be pulled: "
        f"{failed.said}. Remove that line, for BuildKit's own frontend is as good where the Dockerfile needs nothing "
        "newer; or let the operator's policy set images.frontend to `builtin` or to an image that can be pulled here."
    )
    return _not_pulled(failed, Reason.FRONTEND_UNAVAILABLE, message)


def _base_image(failed: _Failed) -> _Found | None:
    match = _PULLS.match(failed.error.name)
    image = match["image"] if match else ""
    if _NO_PLATFORM.search(failed.error.text):
        return _Found(
            Reason.BASE_IMAGE_NOT_FOUND,
            f"{image or 'A base image'} has no image for this platform: use one that has, or drop the platform.",
        )
    if not match:
        return None
    match _answer(failed.error):
        case _Answer.DENIED:
            # "denied" is also what registries say of repositories that do not exist.
            return _Found(
                Reason.BASE_IMAGE_DENIED,
                f"{image} may not be pulled, or does not exist: {failed.said}. Name a Secret in output.secretRefs "
                "whose credentials may pull it, or correct its name.",
            )
        case _Answer.NOT_FOUND | _Answer.REFUSED:
            return _Found(
                Reason.BASE_IMAGE_NOT_FOUND,
                f"{image} does not exist: {failed.said}. Correct its name in the Dockerfile.{_about_stages(image)}",
            )
        case _Answer.NONE:
            return _Found(Reason.REGISTRY_UNREACHABLE, f"The registry of {image} cannot be reached: {failed.said}.")
        case _Answer.FAILED:
            return _Found(Reason.REGISTRY_ERROR, f"The registry of {image} failed: {failed.said}.")
        case None:
            return None


def _about_stages(image: str) -> str:
    """Return a hint where an image is named as a stage is: what BuildKit knows no stage for, it takes for an image."""
    match = re.fullmatch(r"(?:docker\.io/library/)?([a-z0-9._-]+?)(?::latest)?(?:@.*)?", image)
    if not match:
        return ""
    return f" If {match[1]} was meant to be a stage: the Dockerfile has none of that name before this line."


def _added(failed: _Failed) -> _Found | None:
    """Tell what an ADD from a server got: the step is named by its URL."""
    match = _ADDED.match(failed.error.name)
    if not match:
        return None
    what = f"ADD {clip(match['url'], _STEP_NAME)} failed: {failed.said}"
    if _answer(failed.error) in {_Answer.NONE, _Answer.FAILED} or _GIT_NO_ANSWER.search(failed.error.cause):
        return _Found(Reason.SOURCE_UNREACHABLE, f"{what}. The server does not answer, or with an error of its own.")
    return _Found(Reason.BUILD_FAILED, f"{what}. Correct the URL or its checksum in the Dockerfile.")


def _fetched(failed: _Failed) -> _Found | None:
    """Tell that a server failed what a step needs: it is no process, so that all of it are BuildKit's own words."""
    error = failed.error
    if error.step is None:
        return None
    of_layer = _LAYER.search(error.cause) is not None
    what = "a layer that it needs cannot be fetched" if of_layer else "what it needs cannot be fetched"
    message = f"{failed.step} failed: {what}: {failed.said}."
    match _answer(error):
        case _Answer.NONE:
            return _Found(Reason.REGISTRY_UNREACHABLE, message)
        case _Answer.FAILED:
            return _Found(Reason.REGISTRY_ERROR, message)
        case _Answer.DENIED | _Answer.NOT_FOUND | _Answer.REFUSED if of_layer:
            # Its image was described by the same registry a moment ago: a token is out of date, or the blob is gone.
            return _Found(Reason.REGISTRY_ERROR, message)
        case _:
            return None


# --- What carries the build: all of it is retried, but for a node that lets nobody build.


def _infrastructure(failed: _Failed) -> _Found | None:
    error = failed.error
    if _DISK_FULL.search(error.text) and failed.builder.on_volume:
        return _Found(
            Reason.CACHE_VOLUME_FAILED,
            "The volume of the cache is full: set a larger cache.volume.size. The next try has no volume, and this one "
            "is deleted: the next run gets a new one.",
        )
    if _DISK_FULL.search(error.text):
        return _Found(Reason.STEP_FAILED, "The node's disk is full; free space on it, or build on another node.")
    if _NOT_PERMITTED.search(error.text) and _MOUNTING.search(error.cause):
        return _refused_by_node(failed.said)
    if error.step is None and _DAEMON_LOST.search(error.text) and failed.builder.on_volume:
        # It listens before it reads its state. Where it was killed for memory, the state of its container says so.
        return _Found(
            Reason.CACHE_VOLUME_FAILED,
            "buildkitd has crashed, maybe for what the volume of the cache holds; the log of the pod's container "
            "`buildkitd` says why. The next try has no volume, and this one is deleted: the next run gets another.",
        )
    if error.step is None and _DAEMON_LOST.search(error.text):
        return _Found(Reason.BUILDER_LOST, "The connection to buildkitd was lost: it was killed or has crashed.")
    return None


def _refused_by_node(why: str) -> _Found:
    return _Found(
        Reason.BUILDER_UNSUPPORTED,
        f"The node does not let BuildKit run containers ({why}). Build on another node, or let the operator's policy "
        "set another isolation: UserNamespace, or Privileged.",
    )


def _is_infrastructure(text: str) -> bool:
    return any(pattern.search(text) for pattern in (_DAEMON_LOST, _DISK_FULL, _NO_ANSWER, _MOUNTING))


_CHECKS: tuple[Callable[[_Failed], _Found | None], ...] = (
    _process,
    _infrastructure,
    _dockerfile,
    _secrets,
    _sbom,
    _certificate,
    _push,
    _frontend,
    _base_image,
    _added,
    _file,
    _fetched,
)
"""In this order: what is of a process is never compared with anything else."""


def _other(failed: _Failed) -> _Found:
    error = failed.error
    if error.step:
        return _Found(Reason.BUILD_FAILED, f"{failed.step} failed: {failed.said}.")
    if error.solved and not _is_infrastructure(error.text):
        # Before any step there is nothing but the input that BuildKit could refuse.
        return _Found(Reason.DOCKERFILE_INVALID, f"{failed.spec.build.dockerfile} cannot be used: {failed.said}.")
    return _Found(Reason.STEP_FAILED, f"buildctl failed: {failed.said or 'it printed no error'}.")


def _architecture(platform: str) -> str:
    return platform.split("/")[1]
