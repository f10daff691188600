"""Why a build failed, from what buildctl 0.32.2 printed. `tests/unit/steps/buildctl/` has the real texts."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.spec import Spec
from multiarchbuild.oci.names import Repository

from .errors import FOR_REGISTRY, StepError, certificate_error
from .progress import Progress

_TAIL_LINES = 30
_EXIT = re.compile(r'process "(?P<process>.*)" did not complete successfully: exit code: (?P<code>\d+)', re.DOTALL)
_NO_DOCKERFILE = re.compile(r"failed to read dockerfile: open (?P<path>.*): no such file or directory")
_NO_TARGET = re.compile(r'target stage "(?P<target>.*)" could not be found')
_MISSING_FILE = re.compile(
    r'(?:failed to calculate checksum of ref \S+ ?|lstat )"?(?P<path>/[^":]*)"?: (?:not found|no such)'
)
_NO_SECRET = re.compile(r"secret (?P<id>\S+): not found")
_NO_PLATFORM = re.compile(r"no match for platform in manifest")
_PULLS = re.compile(
    r"^(?:\[(?:internal|context \S+)\] load metadata for |resolve image config for docker-image://)(?P<image>\S+)"
)
_FRONTEND = re.compile(r"^resolve image config for docker-image://(?P<image>\S+)")
_SBOM = re.compile(
    r"^(?:resolve image config for docker-image://|docker-image://|\[[^\]]*\] generating sbom using )(?P<image>\S+)"
)
_FROM = re.compile(r"^\[[^\]]*\d+/\d+\] FROM (?P<image>\S+)")
_DENIED = re.compile(
    r"\b(401|403)\b|unauthorized|denied|forbidden|failed to authorize|insufficient_scope|no basic auth", re.IGNORECASE
)
_UNREACHABLE = re.compile(
    r"dial tcp|no such host|connection (refused|reset)|i/o timeout|tls:|x509:|TLS handshake|EOF|deadline exceeded|"
    r"HTTP response to HTTPS client|no route to host|network is unreachable|read tcp|write tcp",
)
_STATUS = re.compile(r"\b(429|5\d\d) |TOOMANYREQUESTS|too many requests", re.IGNORECASE)
_DOCKERFILE = re.compile(
    r"dockerfile parse error|the Dockerfile cannot be empty|no build stage in current context|"
    r"failed to parse stage name|circular dependency|failed to parse platform|should not be blank|"
    r"unknown flag|invalid (field|from flag|reference format)|failed to process",
)
_DAEMON_LOST = re.compile(
    r"rpc error: code = Unavailable|error reading from server|closing transport|transport is closing|"
    r"failed to (list workers|get status|receive status)|no active session|connect: (connection refused|no such file)"
)
_SANDBOX = re.compile(r"OCI runtime create failed|runc create failed|failed to mount|error mounting")
_NOT_PERMITTED = re.compile(r"operation not permitted|permission denied")
_KILLED = 137
"""128 + SIGKILL."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """A build that failed."""

    spec: Spec
    error: str
    """What buildctl says at the end, with the error of the step that failed."""
    step: str
    """Name of that step, or empty."""
    log: str
    """Its last lines."""
    progress: Progress
    sbom_generator: str
    """Image that makes the SBOM, or empty where none is asked for."""


def classify(spec: Spec, progress: Progress, sbom_generator: str = "") -> StepError:
    """Return how the build step fails whose buildctl ended with an error; `sbom_generator` is what makes the SBOM."""
    vertex = progress.failed
    last = _last_error(progress.said)
    failed = _Failed(
        spec,
        f"{last}\n{vertex.error}" if vertex else last,
        vertex.name if vertex else "",
        "\n".join(vertex.tail) if vertex else "",
        progress,
        sbom_generator if spec.attestations.sbom else "",
    )
    found = next(filter(None, (check(failed) for check in _CHECKS)), None) or _other(failed, last)
    reason, message = found
    tail = [*(vertex.tail if vertex else ()), *progress.said]
    return StepError(reason, message, "\n".join(tail[-_TAIL_LINES:]))


class _Found(NamedTuple):
    reason: Reason
    message: str


def _builder(failed: _Failed) -> _Found | None:
    if "exec format error" in failed.log + failed.error:
        return _Found(
            Reason.BUILDER_UNSUPPORTED,
            f"{failed.step} cannot run on this node: exec format error. A program of another architecture needs QEMU: "
            "use a native node, or label a node that has QEMU in binfmt_misc with multiarch.build/qemu-<arch>=true.",
        )
    if _not_permitted(failed.error + failed.log):
        return _Found(
            Reason.BUILDER_UNSUPPORTED,
            "The node does not let BuildKit run containers (see logTail). Build on another node, or let the operator's "
            "policy set another isolation: UserNamespace, or Privileged.",
        )
    if not failed.step and _DAEMON_LOST.search(failed.error):
        return _Found(Reason.BUILDER_LOST, "The connection to buildkitd was lost: it was killed or has crashed.")
    if "no space left on device" in failed.error + failed.log:
        return _Found(Reason.STEP_FAILED, "The node's disk is full; free space on it, or build on another node.")
    return None


def _not_permitted(text: str) -> bool:
    # Two searches and no `.*` between them: what a build prints must not make the search quadratic.
    sandbox = _SANDBOX.search(text)
    return sandbox is not None and _NOT_PERMITTED.search(text, sandbox.end()) is not None


def _dockerfile(failed: _Failed) -> _Found | None:
    if match := _NO_DOCKERFILE.search(failed.error):
        return _Found(
            Reason.DOCKERFILE_NOT_FOUND,
            f"The source has no file {match['path']!r}: correct build.dockerfile"
            + (" or source.git.subdirectory." if failed.spec.source.git else ", or add it to source.inline.files."),
        )
    if match := _NO_TARGET.search(failed.error):
        return _Found(
            Reason.TARGET_NOT_FOUND,
            f"{failed.spec.build.dockerfile} has no stage {match['target']!r}: correct build.target.",
        )
    if not failed.step and _DOCKERFILE.search(failed.error):
        return _Found(Reason.DOCKERFILE_INVALID, f"{failed.spec.build.dockerfile} cannot be used: {_short(failed)}.")
    return None


def _out_of_memory(failed: _Failed) -> _Found | None:
    match = _EXIT.search(failed.error)
    if "cannot allocate memory" in failed.log.lower() or (match and int(match["code"]) == _KILLED):
        return _Found(
            Reason.OUT_OF_MEMORY,
            f"{failed.step} was killed, most likely because memory ran out: raise scheduling.resources.limits.memory, "
            "or let the step use less.",
        )
    return None


def _sbom(failed: _Failed) -> _Found | None:
    match = _SBOM.match(failed.step)
    if not match or not failed.sbom_generator:
        return None
    if Repository.parse(match["image"]) != Repository.parse(failed.sbom_generator):
        return None
    what = f"The SBOM generator {match['image']}, which the operator's policy names in images.sbom,"
    remedy = "attestations.sbom: false builds without an SBOM."
    if exited := _EXIT.search(failed.error):
        return _Found(
            Reason.SBOM_GENERATOR_FAILED,
            f"{what} failed with exit code {exited['code']}: its last lines are in logTail. {remedy}",
        )
    message = (
        f"{what} cannot be pulled: {_short(failed)}. Let the policy name an image that can be pulled here; {remedy}"
    )
    if _DENIED.search(failed.error):
        return _Found(Reason.SBOM_GENERATOR_FAILED, message)
    if _UNREACHABLE.search(failed.error):
        return _Found(Reason.REGISTRY_UNREACHABLE, message)
    return _Found(Reason.REGISTRY_ERROR if _STATUS.search(failed.error) else Reason.SBOM_GENERATOR_FAILED, message)


def _process(failed: _Failed) -> _Found | None:
    if match := _EXIT.search(failed.error):
        return _Found(
            Reason.BUILD_FAILED,
            f"{failed.step} failed with exit code {match['code']}: its last lines are in logTail.",
        )
    return None


def _secrets(failed: _Failed) -> _Found | None:
    if match := _NO_SECRET.search(failed.error):
        return _Found(
            Reason.SECRET_NOT_FOUND,
            f"{failed.step} needs a secret with id {match['id']!r}: add it to build.secrets.",
        )
    if "no SSH key" in failed.error:
        return _Found(
            Reason.SECRET_NOT_FOUND, f"{failed.step} needs an SSH key: name its Secret in build.ssh.secretRef."
        )
    if "failed to convert agent config" in failed.error:
        return _Found(
            Reason.SECRET_INVALID,
            "The key in the Secret of build.ssh cannot be used: it must be a private key without a passphrase.",
        )
    return None


def _certificate(failed: _Failed) -> _Found | None:
    # The first line only: the others are of a step, which may print what it likes.
    error = certificate_error(_short(failed), FOR_REGISTRY, doing=f"{failed.step or 'Building'} failed: ")
    return _Found(error.reason, error.message) if error else None


def _push(failed: _Failed) -> _Found | None:
    image = failed.spec.output.image
    if failed.step != "exporting to image" and "failed to push" not in failed.error:
        return None
    if _DENIED.search(failed.error):
        return _Found(
            Reason.PUSH_DENIED,
            f"Pushing to {image} was denied: {_short(failed)}. Name a Secret in output.secretRefs whose credentials "
            "may push to this repository.",
        )
    if _UNREACHABLE.search(failed.error):
        return _Found(Reason.REGISTRY_UNREACHABLE, f"Pushing to {image} failed: {_short(failed)}.")
    return _Found(Reason.REGISTRY_ERROR, f"Pushing to {image} failed: {_short(failed)}.")


def _frontend(failed: _Failed) -> _Found | None:
    """Say of the image of a `# syntax=` line what it is: few know that building needs it."""
    match = _FRONTEND.match(failed.step)
    if not match or _STATUS.search(failed.error):
        return None
    what = f"The frontend {match['image']}, which the `# syntax=` line of the Dockerfile names"
    remedy = (
        "Remove that line, for BuildKit's own frontend is as good where the Dockerfile needs nothing newer; or let the "
        "operator's policy set images.frontend to `builtin` or to an image that can be pulled here."
    )
    if _UNREACHABLE.search(failed.error) and not _DENIED.search(failed.error):
        return _Found(Reason.REGISTRY_UNREACHABLE, f"{what}, cannot be pulled: {_short(failed)}. {remedy}")
    return _Found(Reason.FRONTEND_UNAVAILABLE, f"{what}, cannot be pulled: {_short(failed)}. {remedy}")


def _base_image(failed: _Failed) -> _Found | None:
    match = _PULLS.match(failed.step) or _FROM.match(failed.step)
    image = match["image"] if match else ""
    if _NO_PLATFORM.search(failed.error):
        return _Found(
            Reason.BASE_IMAGE_NOT_FOUND,
            f"{image or 'A base image'} has no image for this platform: use one that has, or drop the platform.",
        )
    if not match:
        return None
    # "denied" is also what registries say of repositories that do not exist.
    if _DENIED.search(failed.error):
        return _Found(
            Reason.BASE_IMAGE_DENIED,
            f"{image} may not be pulled, or does not exist: {_short(failed)}. Name a Secret in output.secretRefs whose "
            "credentials may pull it, or correct its name.",
        )
    if _UNREACHABLE.search(failed.error):
        return _Found(Reason.REGISTRY_UNREACHABLE, f"The registry of {image} cannot be reached: {_short(failed)}.")
    if _STATUS.search(failed.error):
        return _Found(Reason.REGISTRY_ERROR, f"The registry of {image} failed: {_short(failed)}.")
    if "not found" in failed.error:
        return _Found(Reason.BASE_IMAGE_NOT_FOUND, f"{image} does not exist: correct its name in the Dockerfile.")
    return None


def _file(failed: _Failed) -> _Found | None:
    if match := _MISSING_FILE.search(failed.error):
        return _Found(
            Reason.BUILD_FAILED,
            f"{failed.step} failed: the source has no {match['path']!r} (a .dockerignore may leave it out).",
        )
    return None


_CHECKS: tuple[Callable[[_Failed], _Found | None], ...] = (
    _builder,
    _dockerfile,
    _secrets,
    _out_of_memory,
    _sbom,
    _process,
    _certificate,
    _push,
    _frontend,
    _base_image,
    _file,
)
"""In this order: what is certain first, what rests on a word in a message last."""


def _other(failed: _Failed, last: str) -> _Found:
    if failed.step:
        return _Found(Reason.BUILD_FAILED, f"{failed.step} failed: {_short(failed)}.")
    if any(line.startswith("-----") for line in failed.progress.said):
        # buildctl shows lines of the Dockerfile for what it finds wrong in it.
        return _Found(Reason.DOCKERFILE_INVALID, f"{failed.spec.build.dockerfile} cannot be used: {_short(failed)}.")
    return _Found(Reason.STEP_FAILED, f"buildctl failed: {last or 'it printed no error'}.")


def _last_error(said: list[str]) -> str:
    """Return the error at the end of what buildctl printed; it may go over several lines."""
    start = next((i for i in reversed(range(len(said))) if said[i].startswith("error: ")), None)
    return "\n".join(said[start:] if start is not None else said[-1:]).removeprefix("error: ")


def _short(failed: _Failed) -> str:
    return failed.error.partition("\n")[0].removeprefix("failed to solve: ").rstrip(".")[:800]
