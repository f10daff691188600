"""Why git failed, from what it printed."""

import re
import shlex

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.source import GitSource

from .errors import FOR_ALL, StepError, certificate_error

_REF_UNKNOWN = ("couldn't find remote ref", "not our ref", "unadvertised object", "reference is not a tree")
_AUTHENTICATION = (
    "authentication failed",
    "could not read username",
    "returned error: 401",
    "returned error: 403",
    "permission denied (publickey",
)
_UNKNOWN_REPOSITORY = (
    "' not found",
    "returned error: 404",
    "not valid: is this a git repository",
    "does not appear to be a git repository",
    "repository not found",
    "could not be found or you don't have permission",
)
_HOST_KEY = "host key verification failed"
_LFS = ("filter lfs failed", "git-lfs", "error downloading object")
_REDIRECT = re.compile(r"returned error: 30[1278]")
_NO_TRANSPORT = re.compile(r"transport '(\w+)' not allowed")


def failure(source: GitSource, arguments: tuple[str, ...], said: str) -> StepError:
    """Return how a step fails whose `git <arguments>` printed `said` on standard error."""
    text = said.lower()
    last = next((line for line in reversed(said.splitlines()) if line.strip()), f"git {shlex.join(arguments)} failed")
    last = last.removeprefix("fatal: ").removeprefix("remote: ")
    if untrusted := certificate_error(last, FOR_ALL, doing=f"Fetching {source.url} failed: "):
        return untrusted
    if found := _special(source, text):
        return StepError(*found, said)
    if any(words in text for words in _REF_UNKNOWN):
        return StepError(
            Reason.GIT_REF_NOT_FOUND,
            f"{source.url} has no branch, tag or commit {source.ref!r}: correct source.git.ref (a commit is written "
            "in full, 40 hexadecimal digits).",
            said,
        )
    if any(words in text for words in _AUTHENTICATION):
        remedy = (
            f"the credentials in the Secret {source.secret_ref.name!r} are not accepted: renew them"
            if source.secret_ref
            else "name a Secret with `username` and `password`, `token` or `bearerToken` in source.git.secretRef"
        )
        return StepError(Reason.GIT_AUTHENTICATION_FAILED, f"{source.url} may not be read ({last}): {remedy}.", said)
    if any(words in text for words in _UNKNOWN_REPOSITORY):
        return StepError(
            Reason.GIT_REPOSITORY_NOT_FOUND,
            f"There is no git repository at {source.url} ({last}): correct source.git.url; if it is private, name "
            "a Secret in source.git.secretRef.",
            said,
        )
    return StepError(Reason.GIT_UNREACHABLE, f"Fetching {source.url} failed: {last}.", said)


def _special(source: GitSource, text: str) -> tuple[Reason, str] | None:
    """Return why git failed where it was not about the repository itself; `text` is what it printed, in lower case."""
    if _HOST_KEY in text:
        return Reason.GIT_HOST_KEY_REJECTED, (
            f"The host of {source.url} showed a key that `known_hosts` in the Secret of source.git.secretRef does not "
            "have: compare it with what the server's operators publish, and add it."
        )
    if _REDIRECT.search(text):
        return Reason.GIT_REPOSITORY_NOT_FOUND, (
            f"{source.url} redirects elsewhere, where no `bearerToken` is sent: write the URL that it leads to into "
            "source.git.url."
        )
    if match := _NO_TRANSPORT.search(text):
        return Reason.GIT_AUTHENTICATION_FAILED, (
            f"A submodule of {source.url} is reached by {match[1]}, for which there are no credentials: give it a "
            "relative URL in .gitmodules, or one with https."
        )
    if any(words in text for words in _LFS):
        refused = re.search(r"(.*(?:error downloading object|authentication required|lfs: |batch response).*)", text)
        said = refused[1].strip() if refused else "see logTail"
        if any(words in text for words in ("no such host", "connection refused", "timeout", "http 5", "status 5")):
            return Reason.GIT_UNREACHABLE, f"The LFS server of {source.url} cannot be reached: {said}."
        return Reason.GIT_LFS_FAILED, f"The files that {source.url} keeps in git LFS cannot be fetched: {said}."
    return None
