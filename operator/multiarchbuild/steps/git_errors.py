"""Why git failed, from which of its commands ran and what it printed (with `LC_ALL=C`).

What is quoted in git's output (URLs, paths, refs) is chosen by people and decides nothing. An output that is not
recognised is final: a retry of `git` on the same commit rarely ends otherwise, and hides the cause.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.source import GitSource

from .build_error import clip
from .errors import FOR_ALL, StepError, certificate_error

_REF_UNKNOWN = (
    "couldn't find remote ref",
    "not our ref",
    "unadvertised object",
    "reference is not a tree",
    "did not contain",
    "unable to find current revision in submodule",
)
_AUTHENTICATION = (
    "authentication failed",
    "could not read username",
    "returned error: 401",
    "returned error: 403",
    "permission denied (publickey",
)
_UNKNOWN_REPOSITORY = (
    "repository '' not found",
    "returned error: 404",
    "not valid: is this a git repository",
    "does not appear to be a git repository",
    "repository not found",
    "could not be found or you don't have permission",
)
_UNREACHABLE = re.compile(
    r"could not resolve (host|proxy)|failed to connect|couldn't connect|connect to host .* port|"
    r"connection (was )?(refused|reset|timed out|closed)|network is unreachable|no route to host|"
    r"name or service not known|temporary failure in name resolution|"
    r"operation (timed out|too slow)|timed? ?out\b|returned error: (408|425|429|5\d\d)|"
    r"early eof|unexpected disconnect|unexpected eof|hung up unexpectedly|empty reply from server|"
    r"(recv|send) failure|transfer closed|http/2 (stream|framing)|"
    r"ssl_(read|write|connect)|ssl connect error|gnutls_handshake|gnutls recv error|non-properly terminated|"
    r"kex_exchange_identification|banner exchange"
)
"""What git, curl and ssh say when a server does not answer, breaks off, or answers with an error of its own."""
_LFS_UNREACHABLE = re.compile(
    r"no such host|connection (refused|reset)|timeout|network is unreachable|no route to host|\beof\b|"
    r"server error|http (429|5\d\d)|status (429|5\d\d)|\((429|5\d\d)\)|rate limit"
)
_LFS_DENIED = re.compile(r"git credentials for|authentication required|authorization error|http 40[13]")
_LOCAL_TROUBLE = ("no space left on device", "disk quota exceeded", "out of memory", "input/output error")
_HOST_KEY = "host key verification failed"
_LFS = ("external filter 'git-lfs", "smudge filter lfs failed")
_LFS_CAUSE = re.compile(
    r"^Error downloading object: (?P<file>.+?) \([0-9a-f]+\): Smudge error: Error downloading .*? \([0-9a-f]+\): "
    r"(?P<cause>.*)$",
    re.MULTILINE,
)
_REDIRECT = re.compile(r"returned error: 30[1278]")
_NO_TRANSPORT = re.compile(r"transport '(\w+)' not allowed")
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
_CLONE = re.compile(r"^fatal: clone of '(?P<url>.*)' into submodule path '(?P<path>.*)' failed$")
_GIVEN_UP = re.compile(r"^Failed to clone '(?P<path>.*)' a second time, aborting$")
_SUBMODULE = re.compile(r"(?<!recurse into )submodule path '(?P<path>[^'\n]*)'")
_LINES = 1000
_LINE = 2048
"""Characters of a line that are looked at: a server writes lines as long as it likes."""
_OUTER = re.compile(r"^(Failed to clone '.*'|fatal: Failed to recurse into submodule path '.*'|fatal: clone of '.*)")
_NO_URL = re.compile(r"no url found for submodule path|no submodule mapping found in \.gitmodules for path")
_COMMIT = re.compile(
    r"(?:not our ref|did not contain|unadvertised object|is not a tree:|checkout ')\W*([0-9a-f]{40,64})"
)


@dataclass(frozen=True, slots=True)
class _Subject:
    """The repository that git failed on: the source itself or one of its submodules."""

    source: GitSource
    url: str
    """Empty where git did not print that of the submodule."""
    submodule: str
    """Path of the submodule below the root of the source; empty for the source itself."""
    said: str
    """What git printed about it."""

    @property
    def name(self) -> str:
        if not self.submodule:
            return self.source.url
        return f"the submodule {self.submodule!r}{f' ({self.url})' if self.url else ''} of {self.source.url}"

    @property
    def text(self) -> str:
        """What git printed, in lower case and without what people have chosen."""
        return _QUOTED.sub("''", self.said).replace(self.source.url, "").lower()

    @property
    def last(self) -> str:
        """The last line that says why."""
        lines = [line for line in self.said.splitlines() if line.strip() and not _OUTER.match(line)]
        return lines[-1].removeprefix("fatal: ").removeprefix("remote: ").rstrip(".") if lines else ""


def failure(source: GitSource, arguments: Sequence[str], said: str, *, code: int, folder: Path) -> StepError:
    """Return how a step fails whose `git <arguments>`, run in `folder`, ended with `code` and printed `said`."""
    command = f"git {arguments[0]}"
    said = "\n".join(clip(line, _LINE) for line in said.splitlines()[-_LINES:])
    subject = _subject(source, arguments[0], said, folder)
    text, last = subject.text, subject.last or f"{command} ended with exit code {code}"
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return StepError(Reason.STEP_FAILED, f"{command} of {source.url} was ended by {name}.", said)
    if any(words in text for words in _LOCAL_TROUBLE):
        return StepError(Reason.STEP_FAILED, f"{command} of {source.url} failed in the pod: {last}.", said)
    if untrusted := certificate_error(last, FOR_ALL, doing=f"Fetching {subject.name} failed: "):
        return untrusted
    reason, message = _why(subject, text, last, command)
    return StepError(reason, message[0].upper() + message[1:] if subject.submodule else message, said)


def _why(subject: _Subject, text: str, last: str, command: str) -> tuple[Reason, str]:
    """Return the reason and the message; the order matters, as git says several things about one failure."""
    name = subject.name
    if found := _special(subject, text) or _lfs(subject):
        return found
    if any(words in text for words in _REF_UNKNOWN):
        return Reason.GIT_REF_NOT_FOUND, _unknown_ref(subject)
    if any(words in text for words in _AUTHENTICATION):
        return Reason.GIT_AUTHENTICATION_FAILED, f"{name} may not be read ({last}): {_credentials(subject)}."
    if any(words in text for words in _UNKNOWN_REPOSITORY):
        where = f"the url of {subject.submodule!r} in .gitmodules" if subject.submodule else "source.git.url"
        return Reason.GIT_REPOSITORY_NOT_FOUND, (
            f"{name} does not exist ({last}): correct {where}; if it is private, {_credentials(subject)}."
        )
    if _UNREACHABLE.search(text):
        return Reason.GIT_UNREACHABLE, f"Fetching {name} failed: {last}."
    return Reason.GIT_FAILED, f"{command} failed for {name}: {last}. The full output is in logTail."


def _subject(source: GitSource, command: str, said: str, folder: Path) -> _Subject:
    if command != "submodule":
        return _Subject(source, source.url, "", said)
    lines = said.splitlines()
    clones = [(number, match) for number, line in enumerate(lines) if (match := _CLONE.match(line))]
    given_up = next((match["path"] for line in lines if (match := _GIVEN_UP.match(line))), "")
    # Several are fetched at once; git ends with the one that it gave up, and prints what each has said in one piece.
    own = [(number, match) for number, match in clones if match["path"].endswith(f"/{given_up}")] or clones
    if own:
        number, match = own[-1]
        begin = max((earlier + 1 for earlier, _ in clones if earlier < number), default=0)
        return _Subject(source, match["url"], _below(folder, match["path"]), "\n".join(lines[begin : number + 1]))
    named = _SUBMODULE.search(said)
    return _Subject(source, "", _below(folder, named["path"]) if named else "", said)


def _below(folder: Path, path: str) -> str:
    absolute = Path(path)
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else path


def _unknown_ref(subject: _Subject) -> str:
    if not subject.submodule:
        return (
            f"{subject.name} has no branch, tag or commit {subject.source.ref!r}: correct source.git.ref (a commit is "
            "written in full, 40 hexadecimal digits)."
        )
    commit = _COMMIT.search(subject.said)
    return (
        f"{subject.name} has no commit {commit[1] if commit else 'as the source names it'}: push that commit to the "
        "repository of the submodule, or let the source name one that is there."
    )


def _credentials(subject: _Subject) -> str:
    """Return what to do about the credentials for a repository."""
    secret = subject.source.secret_ref
    if subject.submodule and subject.url and _origin(subject.url) != _origin(subject.source.url):
        return (
            f"credentials are sent to {urlsplit(subject.source.url).hostname} only: move the submodule to that host "
            "and give it a relative url in .gitmodules, or make it public"
        )
    if secret is None:
        return "name a Secret with `username` and `password`, `token` or `bearerToken` in source.git.secretRef"
    if subject.submodule:
        return f"let the credentials in the Secret {secret.name!r} of source.git.secretRef read the submodule too"
    return f"the credentials in the Secret {secret.name!r} are not accepted: renew them"


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


def _special(subject: _Subject, text: str) -> tuple[Reason, str] | None:
    """Return why git failed where it was not about the repository itself."""
    if subject.submodule and _NO_URL.search(text):
        return Reason.SOURCE_INVALID, (
            f"{subject.name} has no url in .gitmodules: add it there, or remove the folder from the commit "
            f"(git rm --cached {subject.submodule})."
        )
    if _HOST_KEY in text:
        return Reason.GIT_HOST_KEY_REJECTED, (
            f"The host of {subject.name} showed a key that `known_hosts` in the Secret of source.git.secretRef does "
            "not have: compare it with what the server's operators publish, and add it."
        )
    if _REDIRECT.search(text):
        where = "its url in .gitmodules" if subject.submodule else "source.git.url"
        return Reason.GIT_REPOSITORY_NOT_FOUND, (
            f"{subject.name} redirects elsewhere, where no `bearerToken` is sent: write the URL that it leads to into "
            f"{where}."
        )
    if match := _NO_TRANSPORT.search(subject.said):
        return Reason.GIT_AUTHENTICATION_FAILED, (
            f"{subject.name} is reached by {match[1]}, for which there are no credentials: give it a "
            "relative URL in .gitmodules, or one with https."
        )
    return None


def _lfs(subject: _Subject) -> tuple[Reason, str] | None:
    said = subject.said
    if not any(words in said for words in _LFS):
        return None
    match = _LFS_CAUSE.search(said)
    file = (
        f"{match['file']!r}, a file in git LFS of {subject.name}," if match else f"a file in git LFS of {subject.name}"
    )
    cause = match["cause"].rstrip(".") if match else "see logTail"
    # What the server says counts, not its URL.
    plain = re.sub(r"https?://\S+", "", _QUOTED.sub("", cause)).lower()
    if _LFS_DENIED.search(plain):
        secret = subject.source.secret_ref
        return Reason.GIT_LFS_FAILED, (
            f"{file} cannot be fetched: {cause}. "
            + (f"Let the Secret {secret.name!r}" if secret else "Name a Secret in source.git.secretRef, and let it")
            + f" allow reading from LFS; it is sent to {urlsplit(subject.source.url).hostname} only."
        )
    if _LFS_UNREACHABLE.search(plain):
        return Reason.GIT_UNREACHABLE, f"{file} cannot be fetched: {cause}. Check that pods may connect to that server."
    return Reason.GIT_LFS_FAILED, f"{file} cannot be fetched: {cause}. Push it with `git lfs push --all`."
